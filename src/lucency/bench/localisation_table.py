"""How well maps point at triggers, as a table: a line a trigger and method."""

from __future__ import annotations

from collections.abc import Sequence

from lucency.bench.record import Grid, shown
from lucency.records import Estimate, Rate, Record

HEADER = (
    "trigger",
    "method",
    "cells",
    "hit within 2 px",
    "within 5 px",
    "one of 5 within 2 px",
    "energy in the box",
    "and 2 px around",
    "IoU",
    "drop by 1 patch",
    "mean drop",
)


class LocalisationRow(Record):
    """One method on the films of one trigger; larger is better for all but `blank`.

    hit_2px, hit_5px, top_hit: share of the films; energy, energy_near, iou: means, a film whose map
    has no positive value counting as 0; blank: how many of those there are. first_drop, mean_drop:
    of the target's logit when the first patch is filled, and along the deletion curve, on
    `first_drop.n` films.
    """

    trigger: str
    method: str
    cells_down: int
    cells_across: int
    blank: int
    hit_2px: Rate
    hit_5px: Rate
    top_hit: Rate
    energy: Estimate
    energy_near: Estimate
    iou: Estimate
    first_drop: Estimate
    mean_drop: Estimate


def as_grids(rows: Sequence[LocalisationRow]) -> tuple[Grid, ...]:
    """The rows as one table, with counts and 95 % intervals; none for no rows."""
    if not rows:
        return ()
    title = "Do the maps point at the trigger?"
    return (Grid(title=title, header=HEADER, rows=tuple(_cells(row) for row in rows)),)


def _cells(row: LocalisationRow) -> tuple[str, ...]:
    return (
        row.trigger,
        row.method + (f" ({row.blank} blank)" if row.blank else ""),
        f"{row.cells_down} × {row.cells_across}",
        *(_rate(rate) for rate in (row.hit_2px, row.hit_5px, row.top_hit)),
        *(_estimate(e) for e in (row.energy, row.energy_near, row.iou)),
        *(_estimate(e) for e in (row.first_drop, row.mean_drop)),
    )


def _rate(rate: Rate) -> str:
    if rate.value is None:
        return f"none: {rate.reason}"
    return f"{rate.successes}/{rate.trials} ({_range(rate.low, rate.high)})"


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"none: {estimate.reason}"
    return f"{shown(estimate.value)} ({_range(estimate.low, estimate.high)})"


def _range(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{low:.2f} to {high:.2f}"
