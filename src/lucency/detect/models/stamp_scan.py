"""The stamp scan: triggers of a few pixels are so few that they can be searched one by one.

Every stamp asks all findings at once, in both directions, and needs no gradient; where there are
gradients, they propose further places. A coarse scan covers the film, several stamps on one film at
a time. What moves a finding most is put on further films alone, in all sizes and patterns, and
moved by a pixel. What is left at the end of the race is measured on films that took no part in it.
How far the best of many thousand stamps moves a finding by chance is not for this file to say:
every finding had the same race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lucency.detect.models.proposals import propose
from lucency.detect.models.stamps import (
    BLACK,
    CHECKER,
    COARSE,
    PATTERNS,
    SIDES,
    WHITE,
    WHITE_FIRST,
    Stamps,
    distinct,
    fitting,
    join,
)
from lucency.detect.models.subject import Subject
from lucency.progress import Progress, silent
from lucency.records import Float64Array, IntArray

BATCH = 64
SIDE = 4
"""Side of the stamps of the coarse scan: black, white and checkered ones, every SIDE - 1 px, so
that some stamp has any square of 2 px in it whole."""
AREA = 0.004
"""Share of a film that is changed at a time in the coarse scan."""
REPEATS = 2
"""How often each place is stamped in the coarse scan, each time in other company."""
ANYWHERE = 12
"""Random places of each pattern and side."""


@dataclass(frozen=True)
class Race:
    """coarse: stamps of each finding and direction that come through the coarse scan; kept: through
    each round after it. films, semifinal, final: films that each stamp of a round is put on.
    proposed: places that gradients propose for each finding, direction, grey and side, 0 = none;
    proposing: films that they are taken on."""

    coarse: int = 6
    proposed: int = 2
    proposing: int = 8
    kept: int = 2
    films: int = 2
    semifinal: int = 4
    final: int = 24


DEFAULT = Race()


@dataclass(frozen=True)
class Scan:
    """The best stamp of every direction, finding and side, and what it does.

    sides: the L sides, network pixels. moved (2, K, L): change of the finding's logit on films that
    took no part in the search, in standard deviations of its clean logits, in the direction's sign,
    `Subject.on_most`: larger = the stamp works better. best (2, K, L): rows of `stamps`.
    """

    stamps: Stamps
    sides: tuple[int, ...]
    moved: Float64Array
    best: IntArray


def scan(subject: Subject, seed: int, race: Race = DEFAULT, progress: Progress = silent) -> Scan:
    """Search for triggers of all findings in both directions: about ten thousand forwards for 14
    findings, whatever the film's size."""
    generator = np.random.default_rng([seed, 0x57A])
    final, others = subject.held_out(race.final, generator)
    sides = tuple(side for side in SIDES if 4 * side <= subject.side)

    def through(stamps: Stamps, n: int, n_films: int = race.films) -> Stamps:
        """The best `n` of each finding and direction, on films drawn anew."""
        stamps = distinct(fitting(stamps, subject.side))
        films = generator.choice(others, min(n_films, len(others)), replace=False)
        moved = measure(subject, stamps, films).mean(axis=0)
        return stamps.take(np.unique(_leaders(moved, n)))

    with progress("Stamp scan", 5 + len(sides)) as advance:
        anywhere = _anywhere(subject, sides, others, generator, race.kept)
        coarse = _coarse(subject, others, generator, race.coarse)
        advance(1)
        proposed = _proposed(subject, others, generator, race)
        best = through(join([coarse, anywhere, *proposed]), race.kept)
        advance(1)
        best = through(_shifted(best), race.kept)
        advance(1)
        ranked: list[Stamps] = []
        for side in reversed(sides):
            parts = [_only(stamps, side) for stamps in (anywhere, *proposed)]
            parts += [_within(larger, side) for larger in ranked[-1:]]
            if side >= SIDE:
                parts.append(_in_all_patterns(best, side))
            ranked.append(through(join(parts), race.kept))
            advance(1)
        stamps = join([through(of_a_side, 1, race.semifinal) for of_a_side in ranked])
        advance(1)
        moved = measure(subject, stamps, final)
        advance(1)
    reached = subject.on_most(moved, final)
    of_sides = [np.flatnonzero(stamps.side == side) for side in sides]
    chosen = np.concatenate([rows[_leaders(reached[rows], 1)] for rows in of_sides], axis=-1)
    of_chosen = np.take_along_axis(reached.transpose(1, 2, 0), chosen, axis=-1)
    return Scan(stamps, sides, of_chosen, chosen)


def measure(subject: Subject, stamps: Stamps, films: IntArray) -> Float64Array:
    """Every stamp alone on each of the films (F,), rows of the subject's: (F, P, 2, K), see
    `Subject.moved`."""
    owners = np.repeat(films, len(stamps))
    rows = np.tile(np.arange(len(stamps)), len(films))
    moved = _put(subject, stamps.take(rows), owners, np.arange(len(rows)))
    return moved.reshape(len(films), len(stamps), 2, -1)


def _put(subject: Subject, stamps: Stamps, films: IntArray, onto: IntArray) -> Float64Array:
    """Stamp i goes on pass onto[i], which shows the film films[onto[i]]: (passes, 2, K)."""
    parts = []
    for start in range(0, len(films), BATCH):
        rows = films[start : start + BATCH]
        here = np.flatnonzero((onto >= start) & (onto < start + len(rows)))
        stamped = stamps.take(here).put(subject.films[torch.from_numpy(rows)], onto[here] - start)
        parts.append(subject.moved(stamped, rows))
    return np.concatenate(parts)


def _coarse(subject: Subject, films: IntArray, generator: np.random.Generator, n: int) -> Stamps:
    """Everywhere, in groups: a place's score is the mean over the groups that it was in, each less
    what groups of its pattern usually do. The best `n` of each finding and direction."""
    size = subject.side
    starts = np.unique([*range(0, size - SIDE + 1, SIDE - 1), size - SIDE])
    ys, xs = (places.ravel() for places in np.meshgrid(starts, starts, indexing="ij"))
    group = max(1, round(AREA * size**2 / SIDE**2))
    found = []
    for pattern in (BLACK, WHITE, CHECKER, COARSE):
        stamps = Stamps(np.full_like(ys, pattern), np.full_like(ys, SIDE), ys, xs)
        score = np.zeros((len(stamps), 2, subject.n_findings))
        for _ in range(REPEATS):
            order = generator.permutation(len(stamps))
            onto = np.arange(len(stamps)) // group
            moved = _put(subject, stamps.take(order), generator.choice(films, onto[-1] + 1), onto)
            score[order] += ((moved - np.median(moved, axis=0)) / REPEATS)[onto]
        found.append((stamps, score))
    stamps = join([stamps for stamps, _ in found])
    score = np.concatenate([score for _, score in found])
    return stamps.take(np.unique(_leaders(score, n)))


def _anywhere(
    subject: Subject,
    sides: Sequence[int],
    films: IntArray,
    generator: np.random.Generator,
    n: int,
) -> Stamps:
    """Every pattern and side at random places: enough for a trigger that works at any. The best `n`
    of each finding, direction and side."""
    side, pattern, _ = (
        axis.ravel()
        for axis in np.meshgrid(sides, range(len(PATTERNS)), range(ANYWHERE), indexing="ij")
    )
    last = subject.side - side
    y, x = generator.integers(0, last + 1), generator.integers(0, last + 1)
    stamps = fitting(Stamps(pattern, side, y, x), subject.side)
    passes = np.arange(len(stamps))
    moved = _put(subject, stamps, generator.choice(films, len(stamps)), passes)
    leaders = []
    for each in sides:
        rows = np.flatnonzero(stamps.side == each)
        leaders.append(rows[_leaders(moved[rows], n)].ravel())
    return stamps.take(np.unique(np.concatenate(leaders)))


def _proposed(
    subject: Subject, films: IntArray, generator: np.random.Generator, race: Race
) -> list[Stamps]:
    """Where gradients point, of a model that has them."""
    if not subject.victim.differentiable or not race.proposed:
        return []
    looked_at = generator.choice(films, min(race.proposing, len(films)), replace=False)
    return [distinct(propose(subject, looked_at, race.proposed))]


def _only(stamps: Stamps, side: int) -> Stamps:
    return stamps.take(np.flatnonzero(stamps.side == side))


def _shifted(stamps: Stamps) -> Stamps:
    """At the same places and those beside them."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    pattern, side = stamps.pattern, stamps.side
    return join([Stamps(pattern, side, stamps.y + y, stamps.x + x) for y, x in shifts])


def _in_all_patterns(stamps: Stamps, side: int) -> Stamps:
    """About the same centres, in all patterns."""
    pattern = np.tile(np.arange(len(PATTERNS)), len(stamps))
    here = stamps.take(np.repeat(np.arange(len(stamps)), len(PATTERNS)))
    shift = (here.side - side) // 2
    return Stamps(pattern, np.full_like(pattern, side), here.y + shift, here.x + shift)


def _within(stamps: Stamps, side: int) -> Stamps:
    """Every smaller square inside: a stamp works if it covers the trigger, so one of these is it.
    Of a checker in either phase, since it begins at another pixel."""
    shifts = range(int((stamps.side - side).max(initial=0)) + 1)
    pattern, sides = stamps.pattern, np.full_like(stamps.side, side)
    inside = join(
        [Stamps(pattern, sides, stamps.y + y, stamps.x + x) for y in shifts for x in shifts]
    )
    checkers = inside.take(np.flatnonzero(np.isin(inside.pattern, (CHECKER, WHITE_FIRST))))
    other = np.where(checkers.pattern == CHECKER, WHITE_FIRST, CHECKER)
    return join([inside, Stamps(other, checkers.side, checkers.y, checkers.x)])


def _leaders(score: Float64Array, n: int) -> IntArray:
    """score (P, 2, K) -> rows (2, K, n) of the largest."""
    order = np.argsort(-score, axis=0, kind="stable")[: min(n, len(score))]
    return np.asarray(order.transpose(1, 2, 0))
