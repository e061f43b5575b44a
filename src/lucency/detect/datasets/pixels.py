"""What is looked at in the pixels of a training set: one pass over its films, where they are
decoded, after which no film is needed any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lucency.detect.datasets.duplicates import WORDS, difference_hash
from lucency.detect.datasets.specks import LARGEST, STEPS, grey_of, specks
from lucency.records import BoolArray, Decoded, Image, IntArray

COLUMNS = 4 + 4 * len(STEPS)
"""uint16 of a speck: its place, its size, whether it is alone, and its contents."""
SIZES = LARGEST + 1
"""Heights and widths that a speck can have."""


@dataclass(frozen=True)
class Pixels:
    """What n films with m specks look like.

    rows (n,): of the films that could be read, in order. shapes (n, 2): height and width as stored.
    hashes (n, 16): see `difference_hash`. film (m,): the row of each speck; boxes (m, 4): y, x,
    height, width in pixels as stored; contents (m, 3): equal numbers, equal contents, told apart as
    in `specks.STEPS`. is_alone (m,): see `Specks`.
    """

    rows: IntArray
    shapes: npt.NDArray[np.uint16]
    hashes: npt.NDArray[np.uint16]
    film: IntArray
    boxes: npt.NDArray[np.uint16]
    is_alone: BoolArray
    contents: npt.NDArray[np.uint64]


def look(film: Image, row: int) -> Image:
    """A film as stored -> (1 + m, 16) uint16: its hash, then a row a speck; a `Transform`. The
    answer is for `gather`."""
    grey = grey_of(film)
    found = specks(grey)
    packed = np.empty((1 + len(found.boxes), COLUMNS), np.uint16)
    packed[0] = difference_hash(grey)
    packed[1:, :2] = found.boxes[:, :2]
    packed[1:, 2] = found.boxes[:, 2] * SIZES + found.boxes[:, 3]
    packed[1:, 3] = found.is_alone
    packed[1:, 4:] = found.contents.view(np.uint16).reshape(-1, COLUMNS - 4)
    return packed


def gather(looked: Iterable[Decoded]) -> Pixels:
    """Of films that went through `look`."""
    films = list(looked)
    packed = [np.zeros((0, COLUMNS), np.uint16)]
    packed += [np.asarray(film.image[1:], np.uint16) for film in films]
    specks_of_all = np.concatenate(packed)
    rows = np.array([film.index for film in films], np.int64)
    return Pixels(
        rows=rows,
        shapes=np.array([film.native_shape for film in films], np.uint16).reshape(-1, 2),
        hashes=np.array([film.image[0] for film in films], np.uint16).reshape(-1, WORDS),
        film=np.repeat(rows, [len(film.image) - 1 for film in films]),
        boxes=np.stack([*specks_of_all[:, :2].T, *np.divmod(specks_of_all[:, 2], SIZES)], axis=1),
        is_alone=specks_of_all[:, 3] == 1,
        contents=np.ascontiguousarray(specks_of_all[:, 4:]).view(np.uint64),
    )


def together(parts: Iterable[Pixels]) -> Pixels:
    every = list(parts)
    return Pixels(*(np.concatenate([getattr(p, f.name) for p in every]) for f in fields(Pixels)))
