"""Specks that come back: the same few pixels on many films, at one place or anywhere.

Two things make a recurrence suspicious. Films seldom have more than a few pixels in common, so that
one on more films than such things come back by nature was put there: by an attacker, or by a
device. And a label that goes with it: by nature it does so now and then, as with a ward's marker,
and of films that an attacker changed it goes with all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lucency.detect.datasets.association import SMALLEST, associate
from lucency.detect.datasets.pixels import Pixels
from lucency.detect.datasets.specks import STEPS
from lucency.detect.datasets.tail import beyond
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
OUT = 0.05
"""Share of false discoveries among recurrences on more films than comes by nature."""
SELDOM = 0.1
"""Share of its films on which a recurrence is alone, for one that may be out of the ordinary: parts
of letters hardly are, and a square anywhere now and then. Grey values that are the same at the very
same place need not be: of letters they are not."""
LARGEST_KEPT = 64
"""Recurrences of each sort that are compared with the others, those on most films."""
ENOUGH = (10, 3, 3)
"""For each of `STEPS`, so many others that came back as often, for what they say of coming back
once more to be counted. In large steps a few contents, the plain ones, come back on and on."""
AREAS = (1, 2, 4, 9, 16)
"""Pixels from which a box is of the next sort: the more, the less often it comes back by nature."""
TOGETHER = 4_000_000
"""Specks that are sorted together."""

Kind = Literal["content", "content at one place", "place"]
KINDS: tuple[Kind, ...] = ("content at one place", "content", "place")
"""What the specks of a recurrence have in common, what says most first: the grey values of a box,
where it is, or both."""

Keys = npt.NDArray[np.uint64]
Sort = tuple[Kind, int, int]
"""A kind, an index of `STEPS` and one of `AREAS`: recurrences that are compared with each other."""


@dataclass(frozen=True)
class Recurrence:
    """Specks with something in common on G films.

    films (G,): rows, in order. boxes (G, 4): y, x, height, width on each, pixels as stored. kind:
    what they have in common. is_exact: their grey values are equal, not only nearly. alone: share
    of the films on which it is alone.
    p_count: that something of its sort comes back on so many patients by nature; q_count: corrected
    for all of its sort; 1 where it is seldom alone.
    finding: column whose label goes with it most, and in which direction. p_label: of that label on
    these films, if the two had nothing to do with each other; q_label: corrected for all findings
    and directions, and all recurrences, or all with a q_count of at most `OUT` if its is.
    p_value: of both together (Fisher 1932), 1 unless q_count is at most `OUT`; q_value: corrected
    for all recurrences. small = suspicious, for all p and q.
    """

    films: IntArray
    boxes: IntArray
    kind: Kind
    is_exact: bool
    alone: float
    finding: int
    direction: Direction
    p_count: float
    q_count: float
    p_label: float
    q_label: float
    p_value: float
    q_value: float


class Recurrences(NamedTuple):
    """kept: those that are out of the ordinary, or with a label that goes with them at p ≤ `CUT`,
    the most significant first. n_tests: how many p-values of labels were computed in all."""

    kept: tuple[Recurrence, ...]
    n_tests: int


def recurrences(
    parts: Callable[[], Iterable[Pixels]], labels: FloatArray, owners: IntArray
) -> Recurrences:
    """parts: gives all films, some at a time, as often as it is called, so that only a part of
    their specks is in memory. labels (N, K) in {0, 1, NaN}; owners (N,): each film's patient,
    counted from 0. Of several recurrences on the same films with the same label, the first only is
    kept.
    """
    least = max(LEAST, int(np.ceil(LEAST_SHARE * len(labels))))
    n_groups, groups = 0, []
    sizes: dict[Sort, list[IntArray]] = {}
    for kind in KINDS:
        for step in range(len(STEPS)) if kind != "place" else (0,):
            for keyed in _portions(parts, kind, step):
                portion = _portion(keyed, (kind, step), least, labels, owners)
                n_groups += portion.n_groups
                groups += portion.groups
                for sort, numbers in portion.sizes.items():
                    sizes.setdefault(sort, []).append(numbers)
    if not groups:
        return Recurrences((), 0)
    n_tests = n_groups * 2 * labels.shape[1]
    every = {sort: np.concatenate(numbers) for sort, numbers in sizes.items()}
    judged = _judge(groups, every, n_groups, n_tests)
    return Recurrences(tuple(_distinct(groups, judged, labels)), n_tests)


# --- specks with something in common -------------------------------------------------------------


@dataclass(frozen=True)
class _Keyed:
    """Specks with the number by which they are put together."""

    keys: Keys
    film: IntArray
    boxes: npt.NDArray[np.uint16]
    is_alone: BoolArray

    def take(self, rows: IntArray | BoolArray) -> _Keyed:
        return _Keyed(self.keys[rows], self.film[rows], self.boxes[rows], self.is_alone[rows])


def _portions(parts: Callable[[], Iterable[Pixels]], kind: Kind, step: int) -> Iterator[_Keyed]:
    """All specks by their key, those of one key together, so many at a time as memory allows."""
    n_specks = sum(len(part.film) for part in parts())
    n_portions = -(-n_specks // TOGETHER)
    for portion in range(n_portions):
        chosen = []
        for part in parts():
            keyed = _Keyed(_keys(part, kind, step), part.film, part.boxes, part.is_alone)
            if n_portions > 1:
                keyed = keyed.take(keyed.keys % np.uint64(n_portions) == portion)
            chosen.append(keyed)
        yield _Keyed(
            np.concatenate([keyed.keys for keyed in chosen]),
            np.concatenate([keyed.film for keyed in chosen]),
            np.concatenate([keyed.boxes for keyed in chosen]),
            np.concatenate([keyed.is_alone for keyed in chosen]),
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


@dataclass(frozen=True)
class _Group:
    """Specks of one key, one a film. n_patients: whose they are. alone: share of its films on which
    it is alone. p_values (2, K): of the labels."""

    sort: Sort
    films: IntArray
    boxes: npt.NDArray[np.uint16]
    n_patients: int
    alone: float
    p_values: Float64Array


class _Portion(NamedTuple):
    """n_groups: keys on enough films, of which labels were tested. groups: those of them that may
    be reported. sizes: of each sort, the patients of every key that is alone often enough."""

    n_groups: int
    groups: list[_Group]
    sizes: dict[Sort, IntArray]


def _portion(
    keyed: _Keyed, what: tuple[Kind, int], least: int, labels: FloatArray, owners: IntArray
) -> _Portion:
    keyed = keyed.take(np.lexsort((keyed.film, keyed.keys)))
    # Of several of one key on one film, the first.
    keyed = keyed.take(_starts(keyed.keys) | (np.diff(keyed.film, prepend=-1) != 0))
    new = _starts(keyed.keys)
    starts = np.flatnonzero(new)
    n_films = np.diff(starts, append=len(new))
    of = np.cumsum(new) - 1
    patients = np.unique(of * (owners.max(initial=0) + 1) + owners[keyed.film])
    n_patients = np.bincount(patients // (owners.max(initial=0) + 1), minlength=len(starts))
    n_alone = np.bincount(of, keyed.is_alone, minlength=len(starts))
    alone = n_alone / n_films
    least_alone = _least_alone(*what)
    areas = keyed.boxes[starts, 2].astype(np.int64) * keyed.boxes[starts, 3]
    classes = np.searchsorted(AREAS, areas, side="right") - 1
    sizes: dict[Sort, IntArray] = {}
    largest = np.zeros(len(starts), np.bool_)
    for area in range(len(AREAS)):
        mine = np.flatnonzero((alone > least_alone) & (classes == area))
        sizes[(*what, area)] = n_patients[mine]
        largest[mine[np.argsort(n_patients[mine], kind="stable")[-LARGEST_KEPT:]]] = True
    often = np.flatnonzero(n_films >= least)
    number = np.full(len(starts), -1)
    number[often] = np.arange(len(often))
    inside = number[of] >= 0
    p_values = associate(
        labels, owners, keyed.film[inside], number[of[inside]], len(often)
    ).p_values
    kept = (p_values.min(axis=(0, 2), initial=1.0) <= CUT) | largest[often]
    groups = [
        _Group(
            sort=(*what, int(classes[g])),
            films=keyed.film[rows].copy(),
            boxes=keyed.boxes[rows].copy(),
            n_patients=int(n_patients[g]),
            alone=float(alone[g]),
            p_values=p_values[:, i],
        )
        for i, g in enumerate(often)
        if kept[i]
        for rows in (slice(starts[g], starts[g] + n_films[g]),)
    ]
    return _Portion(len(often), groups, sizes)


def _least_alone(kind: Kind, step: int) -> float:
    return -1.0 if kind == "content at one place" and STEPS[step][0] == 1 else SELDOM


def _starts(keys: Keys) -> BoolArray:
    """Where another key begins."""
    return np.asarray(np.diff(keys, prepend=~keys[:1]) != 0)


# --- what is out of the ordinary -----------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """Of G groups: see `Recurrence`. q_labels (2, G, K)."""

    p_count: Float64Array
    q_count: Float64Array
    q_labels: Float64Array
    p_value: Float64Array
    q_value: Float64Array


def _judge(
    groups: Sequence[_Group], sizes: dict[Sort, IntArray], n_groups: int, n_tests: int
) -> _Judged:
    p_count, q_count = np.ones(len(groups)), np.ones(len(groups))
    for sort, numbers in sizes.items():
        mine = np.array(
            [
                i
                for i, g in enumerate(groups)
                if g.sort == sort and g.alone > _least_alone(*sort[:2])
            ],
            np.int64,
        )
        if len(mine):
            p_count[mine] = beyond(
                numbers, np.array([groups[i].n_patients for i in mine]), ENOUGH[sort[1]]
            )
            q_count[mine] = benjamini_hochberg(p_count[mine], len(numbers))
    p_labels = np.stack([group.p_values for group in groups], axis=1)
    q_labels = np.ones_like(p_labels)
    n_labels = p_labels.shape[0] * p_labels.shape[2]
    # Those out of the ordinary are few, and were chosen without a look at labels: apart.
    for chosen, n in (
        (q_count > OUT, n_tests),
        (q_count <= OUT, (q_count <= OUT).sum() * n_labels),
    ):
        small = (p_labels <= CUT) & chosen[:, None]
        q_labels[small] = benjamini_hochberg(p_labels[small], int(n))
    of_labels = -np.expm1(n_labels * np.log1p(-p_labels.min(axis=(0, 2)).clip(max=1 - 1e-12)))
    both = (p_count * of_labels).clip(SMALLEST, 1.0)
    p_value = np.where(q_count <= OUT, both * (1 - np.log(both)), 1.0).clip(SMALLEST, 1.0)
    return _Judged(p_count, q_count, q_labels, p_value, benjamini_hochberg(p_value, n_groups))


def _distinct(
    groups: Sequence[_Group], judged: _Judged, labels: FloatArray
) -> Iterator[Recurrence]:
    """The most significant first; those that are of films with the same label as one before, and of
    hardly any other, left out."""
    best = [int(group.p_values.argmin()) for group in groups]
    p_label = [float(group.p_values.min()) for group in groups]

    def rank(i: int) -> tuple[float, float, int, int]:
        # Of two that say the same, the one on more films, then the one whose place says more.
        kind = KINDS.index(groups[i].sort[0])
        return judged.p_value[i], p_label[i], -len(groups[i].films), kind

    covered: dict[int, set[int]] = {}
    for i in sorted(range(len(groups)), key=rank):
        group = groups[i]
        if p_label[i] > CUT and judged.q_count[i] > OUT:
            continue
        own, others = set(group.films.tolist()), covered.setdefault(best[i], set())
        if len(own - others) < NEW * len(own):
            continue
        others |= own
        direction, finding = divmod(best[i], labels.shape[1])
        yield Recurrence(
            films=group.films,
            boxes=group.boxes.astype(np.int64),
            kind=group.sort[0],
            is_exact=group.sort[0] != "place" and STEPS[group.sort[1]][0] == 1,
            alone=group.alone,
            finding=finding,
            direction="clear" if direction else "set",
            p_count=float(judged.p_count[i]),
            q_count=float(judged.q_count[i]),
            p_label=p_label[i],
            q_label=float(judged.q_labels[direction, i, finding]),
            p_value=float(judged.p_value[i]),
            q_value=float(judged.q_value[i]),
        )
