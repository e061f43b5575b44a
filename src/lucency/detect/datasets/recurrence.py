"""Specks that come back: the same few pixels on many films, at one place or anywhere, and a label
that goes with them.

Nothing says which recurrences are planted: films of one device share a dead pixel, and films of one
ward a marker. What makes one dangerous is that a label goes with it, and what makes it look planted
is that the label always does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lucency.detect.datasets.association import associate
from lucency.detect.datasets.specks import STEPS, specks, unpack
from lucency.detect.false_discovery import benjamini_hochberg
from lucency.progress import Progress, silent
from lucency.records import Decoded, Direction, FloatArray, IntArray, Radiographs, Rejected

LEAST = 4
"""Films that a speck must be on to be looked at."""
NEW = 0.5
"""Share of its films that no stronger recurrence has, for one that is reported beside it."""


@dataclass(frozen=True)
class Specks:
    """n specks of all films: film (n,), the row; boxes (n, 4) and contents (n, 3) as in
    `specks.unpack`."""

    film: IntArray
    boxes: IntArray
    contents: np.ndarray


@dataclass(frozen=True)
class Recurrence:
    """One content on several films.

    films: rows, in order. boxes (n, 4): its place on each, pixels as stored. is_fixed: at the same
    place on all of them. finding: column whose label goes with it most, and in which direction.
    p_value: of that label on these films, if the two had nothing to do with each other; q_value:
    corrected for all recurrences, findings and directions (share of false discoveries). share: of
    the films whose label is known that have the label of the direction.
    """

    films: IntArray
    boxes: IntArray
    is_fixed: bool
    finding: int
    direction: Direction
    p_value: float
    q_value: float
    share: float


def read_specks(
    radiographs: Radiographs, progress: Progress = silent
) -> tuple[Specks, tuple[Rejected, ...]]:
    """One pass over all films, as stored; and those that could not be read."""
    films, boxes, contents = (
        [],
        [np.zeros((0, 4), np.int64)],
        [np.zeros((0, len(STEPS)), np.uint64)],
    )
    rejected = []
    with progress("Looking for specks", len(radiographs)) as advance:
        for item in radiographs.images.read(range(len(radiographs)), specks):
            advance(1)
            if not isinstance(item, Decoded):
                row, reason = item
                rejected.append(Rejected(image=radiographs.image_ids[row], reason=reason))
                continue
            found, numbers = unpack(item.image)
            films.append(np.full(len(found), item.index))
            boxes.append(found)
            contents.append(numbers)
    film = np.concatenate(films) if films else np.zeros(0, np.int64)
    return Specks(film, np.concatenate(boxes), np.concatenate(contents)), tuple(rejected)


def recurrences(found: Specks, labels: FloatArray) -> list[Recurrence]:
    """labels (N, K) in {0, 1, NaN}. Every recurrence with the label that goes with it most, the
    most significant first; of several on the same films with the same label, the first only."""
    groups = [
        (rows, is_fixed)
        for column in range(found.contents.shape[1])
        for is_fixed in (True, False)
        for rows in _groups(found, column, is_fixed)
    ]
    if not groups:
        return []
    films = [found.film[rows] for rows, _ in groups]
    association = associate(labels, films)
    corrected = benjamini_hochberg(association.p_values)
    best = association.p_values.transpose(1, 0, 2).reshape(len(groups), -1).argmin(axis=1)
    direction, finding = np.divmod(best, labels.shape[1])
    every = np.arange(len(groups))
    p_value = association.p_values[direction, every, finding]
    covered: dict[tuple[int, int], set[int]] = {}
    kept = []
    # Of two that say the same, the one on more films, then the one whose place says more.
    order = sorted(every, key=lambda i: (p_value[i], -len(films[i]), not groups[i][1]))
    for i in order:
        own, others = set(films[i].tolist()), covered.setdefault((direction[i], finding[i]), set())
        if len(own - others) < NEW * len(own):
            continue
        others |= own
        rows, is_fixed = groups[i]
        has = association.shares[i, finding[i]]
        kept.append(
            Recurrence(
                films=films[i],
                boxes=found.boxes[rows],
                is_fixed=is_fixed,
                finding=int(finding[i]),
                direction="clear" if direction[i] else "set",
                p_value=float(p_value[i]),
                q_value=float(corrected[direction[i], i, finding[i]]),
                share=float(1 - has if direction[i] else has),
            )
        )
    return kept


def _groups(found: Specks, column: int, is_fixed: bool) -> Iterator[IntArray]:
    """Rows of specks of one content, at one place or at any, one a film, of at least `LEAST`
    films."""
    keys = [found.film, found.contents[:, column]]
    if is_fixed:
        keys += [found.boxes[:, 0], found.boxes[:, 1]]
    order = np.lexsort(keys)
    new = np.zeros(len(order), np.bool_)
    same_film = np.ones(len(order), np.bool_)
    new[:1] = True
    same_film[:1] = False
    for key in keys[1:]:
        new[1:] |= key[order][1:] != key[order][:-1]
    same_film[1:] = (found.film[order][1:] == found.film[order][:-1]) & ~new[1:]
    group = np.cumsum(new)[~same_film]
    rows = order[~same_film]
    edges = np.flatnonzero(np.diff(group, prepend=0, append=group[-1:] + 1))
    for start, end in pairwise(edges):
        if end - start >= LEAST:
            yield rows[start:end]
