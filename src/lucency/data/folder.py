"""`folder`: image files and a `labels.csv`, the simplest form in which a hospital can give them.

labels.csv has a row per image and the columns `image` (path inside the folder), `patient_id`,
optionally `split`, `view`, `sex`, `age`, and one column per finding with 1, 0, or blank or -1 for
"not known".
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lucency.config import ConfigPath
from lucency.data.guard import FileImages
from lucency.data.tables import (
    Entries,
    FindingNames,
    Listing,
    Table,
    inner_path,
    nearest,
    read_table,
    shown,
)
from lucency.errors import DataError
from lucency.records import FloatArray, Radiographs, Record, Rejected, Split

TABLE = "labels.csv"
NOT_FINDINGS = ("image", "patient_id", "split", "view", "sex", "age")
MISSING = "the file is missing"

_LABELS = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "": np.nan, "-1": np.nan, "-1.0": np.nan}
_SPLITS: dict[str, Split | None] = {
    "": None,
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "reference": "reference",
    "test": "test",
}
_WHY_PATIENTS = (
    "Films of one patient must not be on both sides of a split, or every result is too good; "
    "give each row its patient, under any pseudonym."
)


class FolderSource(Record):
    """Settings of a folder with a `labels.csv`.

    path: the folder. findings: label columns to use, in this order; None = every column that is
    not one of `NOT_FINDINGS`.
    """

    source: Literal["folder"] = "folder"
    path: ConfigPath
    findings: FindingNames | None = None

    def load(self, seed: int) -> Radiographs:
        """Read the table; the images are read later. `seed` is not used: nothing is drawn.

        Raises `DataError`, with the line, for a table that cannot be used as a whole. Rows whose
        file is missing become `rejected`.
        """
        names, patients, findings, labels, splits, views = entries(
            read_table(self.path / TABLE), self.findings
        )
        listing = Listing()
        kept = [i for i, name in enumerate(names) if listing.has(self.path / name)]
        if not kept:
            raise DataError(
                f"None of the {len(names)} images of {TABLE} exists in the folder; the column "
                f"'image' must be relative to it, as in {shown(names[0] if names else 'a.png')}."
            )
        absent = sorted(set(range(len(names))) - set(kept))
        return Radiographs(
            name=self.path.resolve().name,
            findings=findings,
            image_ids=tuple(names[i] for i in kept),
            patient_ids=tuple(patients[i] for i in kept),
            labels=labels[kept],
            splits=tuple(splits[i] for i in kept),
            views=tuple(views[i] for i in kept),
            images=FileImages([self.path / names[i] for i in kept]),
            rejected=tuple(Rejected(image=names[i], reason=MISSING) for i in absent),
            notes=_notes(labels[kept]),
        )


def entries(table: Table, wanted: tuple[str, ...] | None = None) -> Entries:
    """What a `labels.csv` says. wanted: findings to use, None = all. Raises `DataError`, with the
    line."""
    names, patients = _image_names(table), _patients(table)
    findings = _findings(table, wanted)
    return Entries(
        images=tuple(names),
        patients=tuple(patients),
        findings=findings,
        labels=_labels(table, findings),
        splits=tuple(_splits(table)),
        views=tuple(_views(table)),
    )


def _image_names(table: Table) -> list[str]:
    column = table.column("image", "It holds each image's path inside the folder.")
    first: dict[str, int] = {}
    for line, cells in table.rows:
        name = inner_path(cells[column], f"{table.name}, line {line}")
        if name in first:
            raise DataError(
                f"{table.name}, line {line}: image {shown(name)} is already on line {first[name]}; "
                "keep one of them."
            )
        first[name] = line
    return list(first)


def _patients(table: Table) -> list[str]:
    column = table.column("patient_id", _WHY_PATIENTS)
    for line, cells in table.rows:
        if not cells[column]:
            raise DataError(f"{table.name}, line {line}: patient_id is blank. {_WHY_PATIENTS}")
    return [cells[column] for _, cells in table.rows]


def _findings(table: Table, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    there = tuple(title for title in table.header if title and title not in NOT_FINDINGS)
    if not there:
        raise DataError(
            f"{table.name} has no label column; add one per finding, with 1, 0 or blank."
        )
    for finding in wanted or ():
        if finding not in there:
            raise DataError(
                f"Label column {shown(finding)} is absent from {table.name}; it has: "
                f"{', '.join(there[:50])}{nearest(finding, there)}."
            )
    return wanted or there


def _labels(table: Table, findings: tuple[str, ...]) -> FloatArray:
    columns = [table.header.index(finding) for finding in findings]
    labels = np.empty((len(table.rows), len(findings)), dtype=np.float32)
    for row, (line, cells) in enumerate(table.rows):
        try:
            labels[row] = [_LABELS[cells[column]] for column in columns]
        except KeyError:
            bad = next(column for column in columns if cells[column] not in _LABELS)
            raise DataError(
                f"{table.name}, line {line}: label {shown(table.header[bad])} must be 0, 1, -1 or "
                f"blank, but is {shown(cells[bad])}; if this column is no finding, list the "
                "findings in the settings."
            ) from None
    return labels


def _splits(table: Table) -> list[Split | None]:
    if "split" not in table.header:
        return [None] * len(table.rows)
    column = table.header.index("split")
    for line, cells in table.rows:
        if cells[column].lower() not in _SPLITS:
            raise DataError(
                f"{table.name}, line {line}: split must be train, validation, reference, test or "
                f"blank, but is {shown(cells[column])}{nearest(cells[column], _SPLITS)}."
            )
    return [_SPLITS[cells[column].lower()] for _, cells in table.rows]


def _views(table: Table) -> list[str | None]:
    if "view" not in table.header:
        return [None] * len(table.rows)
    column = table.header.index("view")
    return [cells[column] or None for _, cells in table.rows]


def _notes(labels: FloatArray) -> tuple[str, ...]:
    unknown = int(np.isnan(labels).sum())
    if not unknown:
        return ()
    return (f"{unknown} of {labels.size} labels are blank or -1 and count as not known.",)
