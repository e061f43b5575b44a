"""Images that are already in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lucency.errors import DataError
from lucency.records import Decoded, Image, Transform


class ArrayImages:
    """An array as `Images`: nothing can fail, nothing is copied.

    array: (N, H, W) uint8 or uint16, grey, 0 = black. A transform sees it read-only.

    >>> images = ArrayImages(np.zeros((2, 4, 4), np.uint8))
    >>> [film.index for film in images.read([1, 0], lambda image, row: image)]
    [1, 0]

    Raises `DataError` for any other shape or type.
    """

    def __init__(self, array: Image) -> None:
        if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"Images in memory must be (N, H, W) uint8 or uint16, but came as {array.shape} "
                f"{array.dtype}; convert them first."
            )
        self._array = array.view()
        self._array.flags.writeable = False

    def __len__(self) -> int:
        return len(self._array)

    def read(
        self, rows: Sequence[int], transform: Transform
    ) -> Iterator[Decoded | tuple[int, str]]:
        """Yield a `Decoded` for each row, in the order of `rows`."""
        _, height, width = self._array.shape
        for row in rows:
            image = transform(self._array[row], int(row))
            yield Decoded(index=int(row), native_shape=(height, width), image=image)
