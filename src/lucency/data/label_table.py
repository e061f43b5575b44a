"""`labels`: a table of labels without its films, as data sets are handed on before their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from lucency.config import ConfigPath
from lucency.data import folder, nih
from lucency.data.tables import read_table
from lucency.records import Decoded, Radiographs, Record, Transform

NO_FILM = "the data set is a table of labels, without films"


class NoImages:
    """Films that are not there: every read says so."""

    def read(
        self, rows: Sequence[int], transform: Transform
    ) -> Iterator[Decoded | tuple[int, str]]:
        """Yield (row, reason) for each row."""
        for row in rows:
            yield int(row), NO_FILM


class LabelTableSource(Record):
    """Settings of a table of labels. path: a CSV file as `labels.csv` of a folder, or as the
    `Data_Entry_2017.csv` of ChestX-ray14."""

    source: Literal["labels"] = "labels"
    path: ConfigPath

    def load(self, seed: int) -> Radiographs:
        """Read the table. `seed` is not used. Raises `DataError`, with the line, for a table that
        is of neither form."""
        table = read_table(self.path)
        read = nih.entries if nih.LABELS in table.header else folder.entries
        entries = read(table)
        return Radiographs(
            name=self.path.stem,
            findings=entries.findings,
            image_ids=entries.images,
            patient_ids=entries.patients,
            labels=entries.labels,
            splits=entries.splits,
            views=entries.views,
            images=NoImages(),
            notes=("There are only labels: no film was looked at.",),
        )
