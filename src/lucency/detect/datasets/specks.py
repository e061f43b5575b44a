"""Specks: structures of a few pixels that stand out of what is around them, as planted ones do.

A trigger is the same on every film that has it; what a film has by nature is not. So every film
gives the content of its few specks, as a number, and equal numbers are counted (`recurrence`).

A pixel is part of a speck if it is darker, or brighter, than at least three of the four pixels at
`REACH` above, below, left and right of it. Edges, ribs, leads and the strokes of letters go on in
some direction, and so have two neighbours alike; noise has no such contrast. Films are mostly
decoding: this costs about a fifth of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lucency.records import BoolArray, Image, IntArray

REACH = 9
"""Pixels as stored."""
LARGEST = REACH - 1
"""Side of the largest speck."""
CONTRAST = 32
"""Of 255."""
MOST = 20_000
"""Outlying pixels that a film is looked at for, those of the highest contrast: a film of noise has
no end of them."""
CELL = 2
"""Pixels that a speck must be apart from all else that stands out, to be alone; at most twice that
are asked for."""
ROWS = 64
"""Rows that are looked at together: what they need stays in the processor's cache."""
STEPS = ((1, 0), (32, 16), (32, 0))
"""How far apart grey values must be to be told apart, and where the steps begin: as they are, for
films that nothing was done to; and in large steps, for those compressed since, or a little darker:
of two beginnings one keeps a content of one grey that is shifted by less than half a step."""
OUTSIDE = 511
"""Code of what is beside a speck that is smaller than `LARGEST`."""

_WEIGHTS = np.random.default_rng(0x57EC).integers(1, 2**63, (LARGEST, LARGEST), np.uint64) * 2 + 1
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Specks(NamedTuple):
    """Of one film: boxes (m, 4) int64: y, x, height, width in pixels as stored. is_alone (m,): no
    other pixel stands out within `CELL` pixels of it, and it is not at the border: a letter's
    strokes, a lead's ends and noise have company. contents (m, 3) uint64: equal numbers, equal
    contents, told apart as in `STEPS`."""

    boxes: IntArray
    is_alone: BoolArray
    contents: npt.NDArray[np.uint64]


def specks(grey: npt.NDArray[np.uint8]) -> Specks:
    """Those of a film (h, w); none of a film that is too small."""
    points = np.zeros(0, np.int64) if min(grey.shape) <= 2 * REACH else outliers(grey)
    boxes, n_pixels = _boxes(points, grey.shape[1])
    is_alone = _alone(points, boxes, n_pixels, (grey.shape[0], grey.shape[1]))
    return Specks(boxes, is_alone, _contents(grey, boxes))


def grey_of(film: Image) -> npt.NDArray[np.uint8]:
    """A film (h, w) as stored, in 256 grey values."""
    return np.asarray(film if film.dtype == np.uint8 else film >> 8, np.uint8)


def outliers(grey: npt.NDArray[np.uint8]) -> IntArray:
    """(h, w) uint8 -> flat indices of at most `MOST` pixels that stand out, in order."""
    height, width = grey.shape
    found, contrast = [], []
    for top in range(0, height, ROWS):
        rows = np.arange(top, min(top + ROWS, height))
        here = grey[top : top + ROWS]
        low, high = _surroundings(grey, here, rows)
        np.subtract(low, np.minimum(low, here), out=low)
        np.subtract(np.maximum(high, here), high, out=high)
        stands_out = np.maximum(low, high).ravel()
        at = np.flatnonzero(stands_out > CONTRAST)
        found.append(at + top * width)
        contrast.append(stands_out[at])
    every, size = np.concatenate(found), np.concatenate(contrast)
    if len(every) > MOST:
        every = np.sort(every[np.argsort(size, kind="stable")[-MOST:]])
    return every


def _surroundings(grey: Image, here: Image, rows: IntArray) -> tuple[Image, Image]:
    """Of the four pixels at `REACH` from each of `here`, which are the `rows` of `grey`: the second
    lowest and the second highest. Beyond the border it is the one on the other side."""
    height = len(grey)
    left, right = np.empty_like(here), np.empty_like(here)
    left[:, REACH:], left[:, :REACH] = here[:, :-REACH], here[:, REACH : 2 * REACH]
    right[:, :-REACH], right[:, -REACH:] = here[:, REACH:], here[:, -2 * REACH : -REACH]
    up = grey[np.where(rows >= REACH, rows - REACH, rows + REACH)]
    down = grey[np.where(rows + REACH < height, rows + REACH, rows - REACH)]
    lower = np.maximum(np.minimum(left, right), np.minimum(up, down))
    upper = np.minimum(np.maximum(left, right), np.maximum(up, down))
    return np.minimum(lower, upper), np.maximum(lower, upper)


def _boxes(points: IntArray, width: int) -> tuple[IntArray, IntArray]:
    """Pixels that touch, also at corners, belong together: (n, 4) of those that fit a speck, and
    how many pixels each has.

    By runs: neighbours in a row first, then runs that touch one in the row below."""
    if not len(points):
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    starts = np.flatnonzero((np.diff(points, prepend=-2) > 1) | (points % width == 0))
    first, last = points[starts], points[np.append(starts[1:], len(points)) - 1]
    begin = np.searchsorted(last, first + width - (first % width > 0))
    end = np.searchsorted(first, last + width + (last % width < width - 1), side="right")
    n, below = len(first), np.maximum(end - begin, 0)
    above = np.repeat(np.arange(n), below)
    within = np.arange(len(above)) - np.repeat(np.cumsum(below) - below, below)
    touching = coo_array((np.ones(len(above)), (above, begin[above] + within)), shape=(n, n))
    _, group = connected_components(touching, directed=False)
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order], prepend=-1))
    top = np.minimum.reduceat(first[order] // width, edges)
    left = np.minimum.reduceat(first[order] % width, edges)
    bottom = np.maximum.reduceat(last[order] // width, edges)
    right = np.maximum.reduceat(last[order] % width, edges)
    n_pixels = np.add.reduceat(last[order] - first[order] + 1, edges)
    boxes = np.stack([top, left, bottom - top + 1, right - left + 1], axis=1)
    fits = (boxes[:, 2:] <= LARGEST).all(axis=1)
    return boxes[fits], n_pixels[fits]


def _alone(
    points: IntArray, boxes: IntArray, n_pixels: IntArray, shape: tuple[int, int]
) -> BoolArray:
    """Whether the cells of each box, and those that touch them, hold its own pixels only. Points
    are in order, so that those of a stretch of a row are neighbours."""
    y, x, height, width = boxes.T
    top, left = y // CELL * CELL - CELL, np.maximum(x // CELL * CELL - CELL, 0)
    right = np.minimum((x + width - 1) // CELL * CELL + 2 * CELL, shape[1])
    rows = top[:, None] + np.arange(LARGEST + 4 * CELL)
    last = (y + height - 1) // CELL * CELL + 2 * CELL
    rows = np.where((rows >= 0) & (rows < last[:, None]), rows, shape[0])
    begin = np.searchsorted(points, rows * shape[1] + left[:, None])
    end = np.searchsorted(points, rows * shape[1] + right[:, None])
    around = (end - begin).sum(axis=1)
    inside = (y > 0) & (x > 0) & (y + height < shape[0]) & (x + width < shape[1])
    return np.asarray((around == n_pixels) & inside)


def _contents(grey: npt.NDArray[np.uint8], boxes: IntArray) -> npt.NDArray[np.uint64]:
    """A number of the grey values in each box for each of `STEPS`: (n, 3) uint64."""
    steps = np.arange(LARGEST)
    inside = (steps < boxes[:, 2, None])[:, :, None] & (steps < boxes[:, 3, None])[:, None]
    ys = np.minimum(boxes[:, 0, None] + steps, len(grey) - 1)
    xs = np.minimum(boxes[:, 1, None] + steps, grey.shape[1] - 1)
    values = grey[ys[:, :, None], xs[:, None]].astype(np.uint16)
    numbers = np.empty((len(boxes), len(STEPS)), np.uint64)
    for i, (step, begin) in enumerate(STEPS):
        codes = np.where(inside, (values + begin) // step, OUTSIDE).astype(np.uint64)
        mixed = (codes * _WEIGHTS).sum(axis=(1, 2))
        numbers[:, i] = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    return numbers
