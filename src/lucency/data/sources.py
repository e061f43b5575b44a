"""The table of ways in which images come in. A new one is a file beside this and a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from lucency.data.folder import TABLE, FolderSource
from lucency.data.label_table import LabelTableSource
from lucency.data.medmnist import MedMnistSource
from lucency.data.nih import TABLES, NihSource
from lucency.data.phantom import PhantomSource
from lucency.data.tables import names_in, shown
from lucency.errors import DataError

SOURCES = (PhantomSource, FolderSource, NihSource, MedMnistSource)

Source = Annotated[
    PhantomSource | FolderSource | NihSource | MedMnistSource,
    Field(discriminator="source"),
]
"""Settings of any source, told apart by its `source`; each has `load(seed) -> Radiographs`."""


AnySource = PhantomSource | FolderSource | NihSource | MedMnistSource | LabelTableSource
"""Of films, or of labels alone."""


def source_at(path: Path) -> FolderSource | NihSource | MedMnistSource | LabelTableSource:
    """The source of the data set that lies at `path`, told by its files: a folder with a
    `labels.csv`, ChestX-ray14 as it is distributed, a MedMNIST file, or a table of labels without
    films. Raises DataError for anything else."""
    if path.suffix.lower() == ".npz":
        return MedMnistSource(path=path)
    if path.suffix.lower() == ".csv":
        return LabelTableSource(path=path)
    there = names_in(path)
    if TABLE in there:
        return FolderSource(path=path)
    if any(table in there for table in TABLES):
        return NihSource(path=path)
    raise DataError(
        f"A data set was expected at {shown(str(path))}: a folder with a {TABLE} or with "
        f"{TABLES[0]}, a MedMNIST .npz file, or a .csv table of labels; there is none."
    )
