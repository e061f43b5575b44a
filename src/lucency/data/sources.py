"""The table of ways in which images come in. A new one is a file beside this and a line here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lucency.data.folder import FolderSource
from lucency.data.medmnist import MedMnistSource
from lucency.data.nih import NihSource
from lucency.data.phantom import PhantomSource

SOURCES = (PhantomSource, FolderSource, NihSource, MedMnistSource)

Source = Annotated[
    PhantomSource | FolderSource | NihSource | MedMnistSource,
    Field(discriminator="source"),
]
"""Settings of any source, told apart by its `source`; each has `load(seed) -> Radiographs`."""
