"""From recurrences to what is reported: what looks planted, what looks like a shortcut, and which
films are flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from lucency.detect.datasets.recurrence import Recurrence
from lucency.evaluate.intervals import clopper_pearson
from lucency.records import BoolArray, Box, Estimate, Float64Array, IntArray, Radiographs, Rate
from lucency.report.scan_record import Kind, SharedThing

PLANTED = (0.75, 0.95)
"""Share of the films with something in common that have the label beyond those that would have it
by chance, and the upper end of its interval, for it to look planted: an attacker's have it all, but
for the few films that have it by chance."""
ALONE = 0.5
"""Share of its films on which something is alone that nothing explains, and"""
FEWEST = 5
"""patients that have it: parts of what is there by nature are less often alone, and a few such
parts are alike."""
Shares = tuple[float, float, float]
"""A share, and its interval."""
N_IMAGES = 12
"""Named, and shown, of each recurrence."""


@dataclass(frozen=True)
class Judged:
    """A recurrence at q ≤ α. suspects: its films, those known to lack the label that goes with it
    left out: an attacker's have it. excess: of its films, the share that is poison, with an
    interval: those with the label beyond what chance gives; where no label goes with it none, or
    all."""

    recurrence: Recurrence
    kind: Kind
    suspects: IntArray
    with_label: Rate
    others: Rate
    n_patients: int
    excess: Shares

    @property
    def location(self) -> Box | None:
        """`None` = it is not at one place."""
        if self.recurrence.kind == "content":
            return None
        return box_of(self.recurrence.boxes[0])


def judge(
    found: Sequence[Recurrence], radiographs: Radiographs, owners: IntArray, alpha: float
) -> tuple[Judged, ...]:
    """Those at q ≤ α: what looks planted first, then what nothing explains, then shortcuts; each by
    significance. What only nearly comes back needs a label to be out of the ordinary: a few plain
    contents, black or white, come back often."""
    judged = [
        each
        for r in found
        if min(r.q_value, r.q_label) <= alpha
        and (each := _judge(r, radiographs, owners, alpha)) is not None
    ]
    kinds = get_args(Kind)
    return tuple(
        sorted(
            judged,
            key=lambda j: (kinds.index(j.kind), j.recurrence.p_value, j.recurrence.p_label),
        )
    )


def _judge(
    found: Recurrence, radiographs: Radiographs, owners: IntArray, alpha: float
) -> Judged | None:
    judged = _described(found, "shortcut", radiographs, owners)
    has_label = judged.excess[0] >= PLANTED[0] and judged.excess[2] >= PLANTED[1]
    if found.q_value <= alpha and found.q_label <= alpha and has_label:
        return replace(judged, kind="planted")
    is_part = found.alone <= ALONE or judged.n_patients < FEWEST
    if found.q_value <= alpha and found.is_exact and not is_part:
        return _described(found, "unexplained", radiographs, owners)
    return judged if found.q_label <= alpha else None


def rejudge(judged: Judged, radiographs: Radiographs, owners: IntArray) -> Judged:
    """With other films, of the same kind."""
    return _described(judged.recurrence, judged.kind, radiographs, owners)


def _described(found: Recurrence, kind: Kind, radiographs: Radiographs, owners: IntArray) -> Judged:
    values = radiographs.labels[:, found.finding]
    wanted = 0.0 if found.direction == "clear" else 1.0
    inside = np.zeros(len(values), np.bool_)
    inside[found.films] = True
    with_label = _rate(values == wanted, inside & ~np.isnan(values), owners)
    others = _rate(values == wanted, ~inside & ~np.isnan(values), owners)
    share, base = with_label.value or 0.0, others.value or 0.0
    excess = (
        _beyond(share, base),
        _beyond(with_label.low or 0.0, base),
        _beyond(with_label.high or 1.0, base),
    )
    lacks_it = (values[found.films] != wanted) & ~np.isnan(values[found.films])
    return Judged(
        recurrence=found,
        kind=kind,
        suspects=found.films if kind == "unexplained" else found.films[~lacks_it],
        with_label=with_label,
        others=others,
        n_patients=len(np.unique(owners[found.films])),
        excess=(0.0, 0.0, 1.0) if kind == "unexplained" else excess,
    )


def _rate(hits: BoolArray, among: BoolArray, owners: IntArray) -> Rate:
    """The interval has patients as its trials: Clopper and Pearson's."""
    n, successes = int(among.sum()), int((hits & among).sum())
    if not n:
        return Rate(successes=0, trials=0, value=None, reason="no label is known")
    n_patients = len(np.unique(owners[among]))
    low, high = clopper_pearson(successes / n * n_patients, n_patients)
    return Rate(successes=successes, trials=n, value=successes / n, low=low, high=high)


def _beyond(share: float, base: float) -> float:
    return max(0.0, (share - base) / (1 - base)) if base < 1 else 0.0


def flagged(judged: Sequence[Judged], n: int, *, unexplained: bool = False) -> BoolArray:
    """(N,): suspects of what looks planted; with `unexplained` also of what nothing explains: it
    may be a device's mark, on any share of the films."""
    flags = np.zeros(n, np.bool_)
    for each in judged:
        if each.kind == "planted" or (unexplained and each.kind == "unexplained"):
            flags[each.suspects] = True
    return flags


def poison_rate(
    judged: Sequence[Judged], edited: Sequence[tuple[IntArray, Shares]], n_films: int
) -> Estimate:
    """Share of the films that are poison, of the kinds that can be seen: of what looks planted;
    what nothing explains makes the interval longer only. edited: films with labels that do not fit,
    and the share of them that was edited."""
    amounts = np.zeros(3)
    seen: set[int] = set()
    shared = [(j.recurrence.films, j.excess) for j in judged if j.kind != "shortcut"]
    for films, excess in [*shared, *edited]:
        new = set(films.tolist()) - seen
        seen |= new
        amounts += len(new) * np.array(excess)
    value, low, high = (float(a) / n_films for a in amounts)
    if not seen:
        return Estimate(
            value=0.0, n=n_films, reason="nothing looks poisoned: no interval, for the tests see "
            "only some kinds of triggers",
        )  # fmt: skip
    return Estimate(value=value, low=low, high=high, n=n_films)


def smallest(found: Sequence[Recurrence], n: int) -> tuple[Float64Array, Float64Array]:
    """(N,) each: the smallest p-value, and the smallest q-value, of what each film is part of; 1
    where it is of nothing."""
    p_values, q_values = np.ones(n), np.ones(n)
    for each in found:
        p_values[each.films] = np.minimum(p_values[each.films], each.p_value)
        q_values[each.films] = np.minimum(q_values[each.films], each.q_value)
    return p_values, q_values


def describe(found: Recurrence) -> str:
    """What its specks have in common, in words."""
    _, _, height, width = (int(v) for v in np.median(found.boxes, axis=0))
    size = f"{width} × {height} px"
    if found.kind == "content":
        return f"the same grey values, {size}, at any place"
    if found.kind == "place":
        return f"a speck of {size} at one place, of any grey"
    return f"the same grey values, {size}, at one place"


def shared_thing(judged: Judged, key: str, radiographs: Radiographs) -> SharedThing:
    found = judged.recurrence
    return SharedThing(
        kind=judged.kind,
        what=describe(found),
        location=judged.location,
        finding=radiographs.findings[found.finding],
        direction=found.direction,
        n_films=len(found.films),
        n_patients=judged.n_patients,
        with_label=judged.with_label,
        others=judged.others,
        p_count=found.p_count,
        p_label=found.p_label,
        p_value=found.p_value,
        q_value=found.q_label if judged.kind == "shortcut" else found.q_value,
        images=tuple(radiographs.image_ids[row] for row in found.films[:N_IMAGES]),
        key=key,
    )


def box_of(box: IntArray) -> Box:
    """From y, x, height, width."""
    y, x, height, width = (int(v) for v in box)
    return Box(x=x, y=y, width=width, height=height)
