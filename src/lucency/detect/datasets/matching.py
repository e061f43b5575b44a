"""Where on a film something known is: what came back on some films is looked for on all of them,
also where it hardly stands out, or touches something that does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lucency.detect.datasets.specks import grey_of
from lucency.records import Image

AROUND = 8
"""Pixels that touch it at its corners and at the middle of its sides, of which"""
ALIKE = 2
"""at most so many may be as it is, for it to end where it ends: on black ground there is a black
square everywhere."""
LEAST = 4
"""Of 255, by which the others must differ."""


@dataclass(frozen=True)
class Content:
    """Something known. grey (h, w) uint8. place: y and x, in pixels as stored, or anywhere.
    tolerance: grey values by which each pixel may differ."""

    grey: npt.NDArray[np.uint8]
    place: tuple[int, int] | None
    tolerance: int

    @property
    def is_plain(self) -> bool:
        """Whether it is of one grey."""
        return bool(np.ptp(self.grey) <= self.tolerance)


@dataclass(frozen=True)
class Seek:
    """The transform that looks for n contents on a film: (n, 3) uint16, y, x and contrast of each,
    as in `seek`; a contrast of 0 where it is not. Picklable."""

    contents: tuple[Content, ...]

    def __call__(self, film: Image, row: int) -> Image:
        grey = grey_of(film)
        found = [seek(grey, content) for content in self.contents]
        return np.array(found, np.uint16).reshape(-1, 3)


def seek(grey: npt.NDArray[np.uint8], content: Content) -> tuple[int, int, int]:
    """y and x of the corner at which a film (h, w) has a content, and its contrast, 1 to 255: by
    how much all pixels around it but `ALIKE` differ. Of several, the one that stands out most; 0,
    0, 0 if there is none. At a place it may stand out from nothing."""
    height, width = content.grey.shape
    if content.place is not None:
        y, x = content.place
        here = grey[y : y + height, x : x + width]
        return (y, x, 255) if _alike(here, content) else (0, 0, 0)
    if grey.shape[0] <= height + 1 or grey.shape[1] <= width + 1:
        return 0, 0, 0
    # What lies at the border has nothing beside it to end at, and is left out.
    corners = _near(grey[1:-height, 1:-width], content.grey[0, 0], content.tolerance)
    at = np.flatnonzero(corners)
    at = (at // corners.shape[1] + 1) * grey.shape[1] + at % corners.shape[1] + 1
    flat = grey.ravel()
    # The smallest differences, those in which it may be as what is around it and one more.
    smallest = np.full((len(at), ALIKE + 1), 255, np.int16)
    for y, x, inner in _around(content.grey):
        differs = np.abs(flat[at + y * grey.shape[1] + x].astype(np.int16) - inner)
        smallest = np.sort(np.column_stack([smallest, differs]), axis=1)[:, :-1]
        ends = smallest[:, -1] >= LEAST
        at, smallest = at[ends], smallest[ends]
    for (y, x), value in np.ndenumerate(content.grey):
        same = _near(flat[at + y * grey.shape[1] + x], value, content.tolerance)
        at, smallest = at[same], smallest[same]
    if not len(at):
        return 0, 0, 0
    best = int(smallest[:, -1].argmax())
    return int(at[best] // grey.shape[1]), int(at[best] % grey.shape[1]), int(smallest[best, -1])


def _alike(here: npt.NDArray[np.uint8], content: Content) -> bool:
    return here.shape == content.grey.shape and bool(
        _near(here, content.grey, content.tolerance).all()
    )


def _near(
    grey: npt.NDArray[np.uint8], value: npt.NDArray[np.uint8] | np.uint8, tolerance: int
) -> npt.NDArray[np.bool_]:
    if not tolerance:
        return np.asarray(grey == value)
    return np.asarray(np.abs(grey.astype(np.int16) - np.int16(value)) <= tolerance)


def _around(grey: npt.NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """y and x, from the corner, of each of the `AROUND` pixels, and the value of the pixel of the
    content that it touches."""
    height, width = grey.shape
    rows = {-1: 0, height // 2: height // 2, height: height - 1}
    columns = {-1: 0, width // 2: width // 2, width: width - 1}
    return [
        (y, x, int(grey[inner_y, inner_x]))
        for y, inner_y in rows.items()
        for x, inner_x in columns.items()
        if y in (-1, height) or x in (-1, width)
    ]
