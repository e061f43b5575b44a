"""Read films into network inputs: one array in memory, and the files that failed by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucency.data.preprocess import InputContract
from lucency.errors import DataError
from lucency.progress import Progress, silent
from lucency.records import (
    Decoded,
    Image,
    IntArray,
    NetworkInputs,
    Radiographs,
    Rejected,
    Transform,
)


@dataclass(frozen=True)
class Inputs:
    """Films of `rows` (M,) after the transform: images (M, size, size) as stored, and the native
    (height, width) of each (M, 2)."""

    rows: IntArray
    images: NetworkInputs
    native_shapes: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: IntArray) -> Inputs:
        """The films of these rows, in their order; rows that were rejected are left out."""
        where = {int(row): i for i, row in enumerate(self.rows)}
        keep = np.array([where[int(r)] for r in rows if int(r) in where], dtype=np.int64)
        return Inputs(self.rows[keep], self.images[keep], self.native_shapes[keep])


def read_inputs(
    radiographs: Radiographs,
    rows: IntArray,
    transform: Transform,
    contract: InputContract,
    *,
    progress: Progress = silent,
    description: str = "Reading films",
) -> tuple[Inputs, tuple[Rejected, ...]]:
    """Read, transform and keep `rows`; a film of another depth than the first is rejected.

    Raises DataError if none can be read.
    """
    kept: list[int] = []
    shapes: list[tuple[int, int]] = []
    rejected: list[Rejected] = []
    images: NetworkInputs | None = None
    with progress(description, len(rows)) as advance:
        for item in radiographs.images.read([int(r) for r in rows], transform):
            advance(1)
            if not isinstance(item, Decoded):
                row, reason = item
                rejected.append(Rejected(image=radiographs.image_ids[row], reason=reason))
                continue
            if images is None:
                shape = (len(rows), contract.size, contract.size)
                images = np.empty(shape, dtype=item.image.dtype)
            if item.image.dtype != images.dtype:
                reason = f"{item.image.dtype} pixels where the first film has {images.dtype}"
                rejected.append(Rejected(image=radiographs.image_ids[item.index], reason=reason))
                continue
            images[len(kept)] = item.image
            kept.append(item.index)
            shapes.append(item.native_shape)
    if images is None:
        first = f" (the first: {rejected[0].image}: {rejected[0].reason})" if rejected else ""
        raise DataError(
            f"At least one readable film was expected in {radiographs.name}, got none of "
            f"{len(rows)}{first}."
        )
    native = np.array(shapes, dtype=np.int64).reshape(-1, 2)
    return Inputs(np.array(kept, np.int64), images[: len(kept)], native), tuple(rejected)


def as_stored(image: Image, row: int) -> Image:
    """The transform that leaves a film as it is."""
    return image
