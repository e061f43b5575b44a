"""Specks that come back: the same few pixels on many films, at one place or anywhere, and a label
that goes with them.

Nothing says which recurrences are planted: films of one device share a dead pixel, and films of one
ward a marker. What makes one dangerous is that a label goes with it, and what makes it look planted
is that the label always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lucency.detect.datasets.association import associate
from lucency.detect.datasets.pixels import Pixels
from lucency.detect.datasets.specks import STEPS
from lucency.detect.false_discovery import benjamini_hochberg
from lucency.records import BoolArray, Direction, Float64Array, FloatArray, IntArray

LEAST = 4
"""Films that a speck must be on to be looked at, and"""
LEAST_SHARE = 2e-4
"""of all films, so many: by chance, specks of 100,000 films meet at one place more than once."""
NEW = 0.5
"""Share of its films that no stronger recurrence has, for one that is reported beside it."""
CUT = 0.05
"""Recurrences of a larger p-value are counted, and forgotten."""
TOGETHER = 4_000_000
"""Specks that are sorted together."""

Kind = Literal["content", "content at one place", "place"]
KINDS: tuple[Kind, ...] = ("content at one place", "content", "place")
"""What the specks of a recurrence have in common, what says most first: the grey values of a box,
where it is, or both."""

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Recurrence:
    """Specks with something in common on G films.

    films (G,): rows, in order. boxes (G, 4): y, x, height, width on each, pixels as stored. kind:
    what they have in common. finding: column whose label goes with it most, and in which direction.
    p_value: of that label on these films, if the two had nothing to do with each other; q_value:
    corrected for all recurrences, findings and directions (share of false discoveries). n_known:
    the films whose label is known; n_with: those of them with the label of the direction.
    """

    films: IntArray
    boxes: IntArray
    kind: Kind
    finding: int
    direction: Direction
    p_value: float
    q_value: float
    n_known: int
    n_with: int


class Recurrences(NamedTuple):
    """kept: those whose p-value is at most `CUT`, with the label that goes with each most, the most
    significant first. n_tests: how many p-values were computed in all."""

    kept: tuple[Recurrence, ...]
    n_tests: int


@dataclass(frozen=True)
class _Group:
    """Specks of one key: rows of the films, a speck each."""

    kind: Kind
    films: IntArray
    boxes: npt.NDArray[np.uint16]
    p_values: Float64Array
    """(2, K)"""


def recurrences(
    parts: Callable[[], Iterable[Pixels]], labels: FloatArray, owners: IntArray
) -> Recurrences:
    """parts: gives all films, some at a time, as often as it is called, so that only a part of
    their specks is in memory. labels (N, K) in {0, 1, NaN}; owners (N,): each film's patient,
    counted from 0. Of several recurrences on the same films with the same label, the first only is
    kept.
    """
    least = max(LEAST, int(np.ceil(LEAST_SHARE * len(labels))))
    n_tests, groups = 0, []
    for kind in KINDS:
        for step in range(len(STEPS)) if kind != "place" else (0,):
            for keyed in _portions(parts, kind, step):
                n_groups, found = _groups(keyed, kind, least, labels, owners)
                n_tests += n_groups * 2 * labels.shape[1]
                groups += found
    if not groups:
        return Recurrences((), n_tests)
    p_values = np.stack([group.p_values for group in groups], axis=1)
    corrected = np.ones_like(p_values)
    small = p_values <= CUT
    corrected[small] = benjamini_hochberg(p_values[small], n_tests)
    return Recurrences(tuple(_distinct(groups, corrected, labels)), n_tests)


@dataclass(frozen=True)
class _Keyed:
    """Specks with the number by which they are put together."""

    keys: Keys
    film: IntArray
    boxes: npt.NDArray[np.uint16]

    def take(self, rows: IntArray | BoolArray) -> _Keyed:
        return _Keyed(self.keys[rows], self.film[rows], self.boxes[rows])


def _portions(parts: Callable[[], Iterable[Pixels]], kind: Kind, step: int) -> Iterator[_Keyed]:
    """All specks by their key, those of one key together, so many at a time as memory allows."""
    n_specks = sum(len(part.film) for part in parts())
    n_portions = -(-n_specks // TOGETHER)
    for portion in range(n_portions):
        chosen = []
        for part in parts():
            keyed = _Keyed(_keys(part, kind, step), part.film, part.boxes)
            if n_portions > 1:
                keyed = keyed.take(keyed.keys % np.uint64(n_portions) == portion)
            chosen.append(keyed)
        yield _Keyed(
            np.concatenate([keyed.keys for keyed in chosen]),
            np.concatenate([keyed.film for keyed in chosen]),
            np.concatenate([keyed.boxes for keyed in chosen]),
        )


_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _keys(part: Pixels, kind: Kind, step: int) -> Keys:
    content = part.contents[:, step]
    if kind == "content":
        return _mixed(content)
    place = np.ascontiguousarray(part.boxes).view(np.uint64).ravel()
    if kind == "place":
        return _mixed(place)
    return _mixed(_mixed(content) ^ _mixed(place + _MIX[0]))


def _mixed(numbers: Keys) -> Keys:
    """Each number's own, with no bit that is like its neighbours' (Steele et al. 2014)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    return mixed ^ (mixed >> np.uint64(31))


def _groups(
    keyed: _Keyed, kind: Kind, least: int, labels: FloatArray, owners: IntArray
) -> tuple[int, list[_Group]]:
    """How many keys are on at least `least` films, and the groups of those whose p-value for some
    label is at most `CUT`."""
    keyed = keyed.take(np.lexsort((keyed.film, keyed.keys)))
    new_key = np.diff(keyed.keys, prepend=~keyed.keys[:1]) != 0
    # Of several on one film, the first.
    keyed = keyed.take(new_key | (np.diff(keyed.film, prepend=-1) != 0))
    starts = np.flatnonzero(np.diff(keyed.keys, prepend=~keyed.keys[:1]) != 0)
    sizes = np.diff(starts, append=len(keyed.keys))
    often = np.repeat(sizes >= least, sizes)
    keyed, sizes = keyed.take(often), sizes[sizes >= least]
    n_groups = len(sizes)
    if not n_groups:
        return 0, []
    of = np.repeat(np.arange(n_groups), sizes)
    p_values = associate(labels, owners, keyed.film, of, n_groups).p_values
    ends = np.cumsum(sizes)
    kept = np.flatnonzero(p_values.min(axis=(0, 2)) <= CUT)
    return n_groups, [
        _Group(kind, keyed.film[rows].copy(), keyed.boxes[rows].copy(), p_values[:, i])
        for i in kept
        for rows in (slice(ends[i] - sizes[i], ends[i]),)
    ]


def _distinct(
    groups: Sequence[_Group], corrected: Float64Array, labels: FloatArray
) -> Iterator[Recurrence]:
    """The most significant first; those that are of films with the same label as one before, and of
    hardly any other, left out. corrected (2, G, K)."""
    best = [int(group.p_values.argmin()) for group in groups]
    smallest = [float(group.p_values.min()) for group in groups]

    def rank(i: int) -> tuple[float, int, int]:
        # Of two that say the same, the one on more films, then the one whose place says more.
        return smallest[i], -len(groups[i].films), KINDS.index(groups[i].kind)

    covered: dict[int, set[int]] = {}
    for i in sorted(range(len(groups)), key=rank):
        group = groups[i]
        own, others = set(group.films.tolist()), covered.setdefault(best[i], set())
        if len(own - others) < NEW * len(own):
            continue
        others |= own
        direction, finding = divmod(best[i], labels.shape[1])
        values = labels[group.films, finding]
        yield Recurrence(
            films=group.films,
            boxes=group.boxes.astype(np.int64),
            kind=group.kind,
            finding=finding,
            direction="clear" if direction else "set",
            p_value=smallest[i],
            q_value=float(corrected[direction, i, finding]),
            n_known=int((~np.isnan(values)).sum()),
            n_with=int((values == (0 if direction else 1)).sum()),
        )
