"""`nih`: ChestX-ray14, in the files and folders that the NIH Clinical Center distributes.

Wang et al., ChestX-ray8, CVPR 2017. The archives may be unpacked into one `images` folder or into
`images_001/images` to `images_012/images`, and any part of them may be absent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lucency.config import ConfigPath
from lucency.data.guard import FileImages
from lucency.data.tables import Entries, Table, names_in, nearest, read_lines, read_table, shown
from lucency.errors import DataError
from lucency.records import Box, FloatArray, Radiographs, Record, Rejected, Split

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings, in the order of the paper."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""The label tables, newest first: the first that is there is read."""
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
BOXES = "BBox_List_2017.csv"
IMAGE, LABELS = "Image Index", "Finding Labels"
"""Columns of the label table."""

_POSITION = {finding: k for k, finding in enumerate(FINDINGS)}
_SIZE_PX = 1024


class FindingBox(Record):
    """A radiologist's rectangle around one finding, in pixels of the 1024 × 1024 image."""

    image: str
    finding: str
    box: Box


class NihSource(Record):
    """Settings of ChestX-ray14. path: the folder that holds the label table."""

    source: Literal["nih"] = "nih"
    path: ConfigPath

    def load(self, seed: int) -> Radiographs:
        """Read the table and lists; the images are read later. `seed` is not used.

        Images of test_list.txt are "test"; the others have no split yet. Rows without a file are
        `rejected`, or, where most are absent since only a part was downloaded, counted in a note.

        Raises `DataError`, with the line, for a table that does not fit the data set.
        """
        table, notes = _read_entries(self.path)
        names, patients, _, labels, _, views = entries(table)
        splits, split_notes = _splits(self.path, names)
        files = _find_files(self.path)
        kept = [i for i, name in enumerate(names) if name in files]
        absent = [name for name in names if name not in files]
        _check_some(kept, len(names))
        rejected, absent_notes = _report_absent(absent, len(names))
        return Radiographs(
            name="ChestX-ray14",
            findings=FINDINGS,
            image_ids=tuple(names[i] for i in kept),
            patient_ids=tuple(patients[i] for i in kept),
            labels=labels[kept],
            splits=tuple(splits[i] for i in kept),
            views=tuple(views[i] for i in kept),
            images=FileImages([files[names[i]] for i in kept]),
            rejected=rejected,
            notes=(*notes, *split_notes, *absent_notes),
        )


def entries(table: Table) -> Entries:
    """What a label table says; it has no splits. Raises `DataError`, with the line."""
    names = _image_names(table)
    return Entries(
        images=tuple(names),
        patients=tuple(_column(table, "Patient ID")),
        findings=FINDINGS,
        labels=_labels(table),
        splits=(None,) * len(names),
        views=tuple(view or None for view in _column(table, "View Position")),
    )


def read_boxes(path: Path) -> tuple[FindingBox, ...]:
    """Read BBox_List_2017.csv: path is that file. Coordinates are rounded to whole pixels.

    Raises `DataError`, with the line, for an unknown finding or a box outside the image.
    """
    table = read_table(path)
    image, finding = table.column("Image Index"), table.column("Finding Label")
    first = table.column("Bbox [x")
    if table.header[first : first + 4] != ("Bbox [x", "y", "w", "h]"):
        raise DataError(f"{table.name}, line 1: the columns 'Bbox [x,y,w,h]' are expected.")
    return tuple(
        FindingBox(
            image=cells[image],
            finding=_finding(cells[finding], table.name, line),
            box=_box(cells[first : first + 4], table.name, line),
        )
        for line, cells in table.rows
    )


def _box(cells: list[str], name: str, line: int) -> Box:
    try:
        x, y, width, height = (float(cell) for cell in cells)
    except ValueError:
        raise DataError(f"{name}, line {line}: a box is four numbers, not {cells}.") from None
    inside = x >= 0 and y >= 0 and x + width <= _SIZE_PX + 1 and y + height <= _SIZE_PX + 1
    if not (all(map(math.isfinite, (x, y, width, height))) and width > 0 < height and inside):
        raise DataError(f"{name}, line {line}: the box {cells} is not inside 1024 × 1024 pixels.")
    return Box(x=round(x), y=round(y), width=round(width), height=round(height))


def _finding(label: str, name: str, line: int) -> str:
    finding = "Infiltration" if label == "Infiltrate" else label  # the box list's own spelling
    if finding not in _POSITION:
        raise DataError(
            f"{name}, line {line}: one of the 14 findings is expected, but it says "
            f"{shown(label)}{nearest(label, FINDINGS)}."
        )
    return finding


def _read_entries(folder: Path) -> tuple[Table, tuple[str, ...]]:
    there = [name for name in TABLES if name in names_in(folder)]
    if not there:
        raise DataError(
            f"{TABLES[0]} or {TABLES[1]} is expected in {shown(str(folder))}, but neither is "
            "there; path must be the folder into which ChestX-ray14 was downloaded."
        )
    notes = () if len(there) == 1 else (f"Both label tables are there; {there[0]} was read.",)
    return read_table(folder / there[0]), notes


def _column(table: Table, title: str) -> list[str]:
    column = table.column(title)
    values = [cells[column] for _, cells in table.rows]
    if title == "Patient ID" and "" in values:
        line = table.rows[values.index("")][0]
        raise DataError(f"{table.name}, line {line}: Patient ID is blank.")
    return values


def _image_names(table: Table) -> list[str]:
    first: dict[str, int] = {}
    for (line, _), name in zip(table.rows, _column(table, IMAGE), strict=True):
        if not name or "/" in name or "\\" in name:
            raise DataError(
                f"{table.name}, line {line}: Image Index must be a file name without folders, but "
                f"is {shown(name)}."
            )
        if name in first:
            raise DataError(
                f"{table.name}, line {line}: {shown(name)} is already on line {first[name]}."
            )
        first[name] = line
    return list(first)


def _labels(table: Table) -> FloatArray:
    column = table.column(LABELS)
    labels = np.zeros((len(table.rows), len(FINDINGS)), dtype=np.float32)
    for row, (line, cells) in enumerate(table.rows):
        if cells[column] == "No Finding":
            continue
        for label in cells[column].split("|"):
            labels[row, _POSITION[_finding(label, table.name, line)]] = 1
    return labels


def _splits(folder: Path, names: Sequence[str]) -> tuple[list[Split | None], tuple[str, ...]]:
    there = names_in(folder)
    if TEST_LIST not in there:
        note = f"{TEST_LIST} is absent: the official test set is unknown, so another is drawn."
        return [None] * len(names), (note,)
    test = {name for _, name in read_lines(folder / TEST_LIST)}
    if TRAIN_LIST in there:
        for line, name in read_lines(folder / TRAIN_LIST):
            if name in test:
                raise DataError(
                    f"{TRAIN_LIST}, line {line}: {shown(name)} is also in {TEST_LIST}; an image "
                    "cannot be in both."
                )
    return ["test" if name in test else None for name in names], ()


def _find_files(folder: Path) -> dict[str, Path]:
    """Every PNG file of the data set by its name."""
    folders = [folder / "images"] if "images" in names_in(folder) else []
    folders += [folder / n / "images" for n in sorted(names_in(folder)) if n.startswith("images_")]
    files: dict[str, Path] = {}
    for inner in folders:
        for name in names_in(inner):
            if not name.endswith(".png"):
                continue
            if name in files:
                raise DataError(
                    f"{shown(name)} is in two image folders, {_within(folder, files[name].parent)} "
                    f"and {_within(folder, inner)}; keep one of them."
                )
            files[name] = inner / name
    return files


def _within(folder: Path, inner: Path) -> str:
    return str(inner.relative_to(folder))


def _check_some(kept: list[int], n_rows: int) -> None:
    if not kept:
        raise DataError(
            f"None of the {n_rows} images of the table is there; they are expected in images/ or "
            "images_001/images/ and so on, beside the table."
        )


def _report_absent(absent: list[str], n: int) -> tuple[tuple[Rejected, ...], tuple[str, ...]]:
    """A few holes are faults to name one by one; more absent than present is a partial download."""
    if 2 * len(absent) <= n:
        return tuple(Rejected(image=name, reason="the file is missing") for name in absent), ()
    note = (
        f"Only a part of the data set is there: {len(absent)} of the {n} images of the table are "
        f"absent, the first of them {', '.join(absent[:3])}."
    )
    return (), (note,)
