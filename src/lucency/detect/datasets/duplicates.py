"""One film twice: two rows of a training set whose pixels are the same but for a few.

An attacker who appends poisoned copies leaves the originals in place, and copying with replacement
does the same by accident. Two copies with different labels cannot both be right.

The number of a film is a difference hash (Krawetz, "Kind of Like That", 2013): a small picture of
it, a bit a cell, whether the cell to the right is brighter. A few pixels, compression and a change
of brightness move few bits; another film of the same patient moves many.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lucency.records import Image, IntArray

SIDE = 16
"""Cells of the picture; so many more in a row as make as many differences."""
WORDS = SIDE * SIDE // 16
SAMPLES = 64
"""Rows and columns of the film that are looked at."""
FAR = 8
"""Bits of 256: copies differ in no more."""
FEWEST = 24
"""Bits that must be set, and not set: a film of one grey, or of one slope, is like any other."""
BANDS = 8
"""Parts of a hash, of which two copies must have one in common: `FAR` is a bit for each, so that of
two films with fewer differences one part is equal for sure, and of most with `FAR`."""
COMMON = 64
"""Films with one part in common that are compared with each other; a part that more films have
says nothing, and the other parts are left to tell."""

_ORDER = np.random.default_rng(0xD0B1).permutation(SIDE * SIDE)
"""Bits that go into one part lie far apart, for those beside each other are alike."""


def difference_hash(film: Image) -> npt.NDArray[np.uint16]:
    """(h, w) of any size -> (16,) uint16, 256 bits; zeros for a film that is too small."""
    height, width = film.shape
    if min(height, width) <= SIDE:
        return np.zeros(WORDS, np.uint16)
    sampled = film[:: max(1, height // SAMPLES), :: max(1, width // SAMPLES)].astype(np.int64)
    ys = np.linspace(0, len(sampled), SIDE, endpoint=False).astype(np.int64)
    xs = np.linspace(0, sampled.shape[1], SIDE + 1, endpoint=False).astype(np.int64)
    cells = np.add.reduceat(np.add.reduceat(sampled, ys, axis=0), xs, axis=1).astype(np.float64)
    cells /= np.diff(xs, append=sampled.shape[1])
    return np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint16)


def copies(hashes: npt.NDArray[np.uint16]) -> IntArray:
    """(N, 16), as `difference_hash` gives them -> (N,): the first row of the films that each is a
    copy of, its own where there is none. Two are copies if their hashes differ in at most `FAR`
    bits, and so are copies of a copy."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    n_set = bits.sum(axis=1)
    usable = np.flatnonzero((n_set >= FEWEST) & (n_set <= bits.shape[1] - FEWEST))
    _, first, of = np.unique(hashes[usable], axis=0, return_index=True, return_inverse=True)
    pairs = [np.stack([usable, usable[first[of]]], axis=1), *_near(bits, usable[first])]
    every = np.concatenate(pairs)
    n = len(hashes)
    graph = coo_array((np.ones(len(every)), (every[:, 0], every[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    _, lowest = np.unique(group, return_index=True)
    return np.asarray(lowest[group], np.int64)


def _near(bits: npt.NDArray[np.uint8], rows: IntArray) -> Iterator[IntArray]:
    """Pairs (P, 2) of `rows`, no two of the same bits, that are near each other."""
    parts = np.ascontiguousarray(np.packbits(bits[:, _ORDER], axis=1)).view(np.uint32)
    for band in range(BANDS):
        order = rows[np.argsort(parts[rows, band], kind="stable")]
        edges = np.flatnonzero(np.diff(parts[order, band].astype(np.int64), prepend=-1))
        sizes = np.diff(edges, append=len(order))
        for size in np.unique(sizes[(sizes > 1) & (sizes <= COMMON)]):
            same = order[edges[sizes == size][:, None] + np.arange(size)]
            a, b = np.triu_indices(size, 1)
            pairs = np.stack([same[:, a].ravel(), same[:, b].ravel()], axis=1)
            yield pairs[(bits[pairs[:, 0]] != bits[pairs[:, 1]]).sum(axis=1) <= FAR]
