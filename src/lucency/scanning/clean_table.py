"""The training set without the films that look poisoned, as a table to train from."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lucency.data import nih
from lucency.data.folder import NOT_FINDINGS, TABLE, FolderSource
from lucency.data.label_table import LabelTableSource
from lucency.data.sources import AnySource
from lucency.data.tables import inner_path, read_table
from lucency.records import BoolArray, Radiographs
from lucency.runs import write_via

VALUES = {0.0: "0", 1.0: "1"}
HEADER = tuple(name for name in NOT_FINDINGS if name not in ("sex", "age"))


def write_clean(path: Path, source: AnySource, radiographs: Radiographs, keep: BoolArray) -> None:
    """keep (N,). Of a folder, the lines of its `labels.csv` as they are, to be put in its place;
    of a table of labels, its own; of any other source, a table of the first form."""
    lines = _anew(radiographs, keep)
    if isinstance(source, FolderSource):
        lines = _as_they_are(source.path / TABLE, radiographs, keep)
    if isinstance(source, LabelTableSource):
        lines = _as_they_are(source.path, radiographs, keep)
    write_via(path, lambda temp: _write(temp, lines))


def _write(path: Path, lines: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _as_they_are(path: Path, radiographs: Radiographs, keep: BoolArray) -> Iterator[list[str]]:
    table = read_table(path)
    column = table.column(nih.IMAGE if nih.IMAGE in table.header else "image")
    kept = {radiographs.image_ids[row] for row in np.flatnonzero(keep)}
    yield list(table.header)
    for line, cells in table.rows:
        if inner_path(cells[column], f"{table.name}, line {line}") in kept:
            yield cells


def _anew(radiographs: Radiographs, keep: BoolArray) -> Iterator[list[str]]:
    yield [*HEADER, *radiographs.findings]
    for row in np.flatnonzero(keep):
        yield [
            radiographs.image_ids[row],
            radiographs.patient_ids[row],
            radiographs.splits[row] or "",
            radiographs.views[row] or "",
            *(VALUES.get(float(value), "") for value in radiographs.labels[row]),
        ]
