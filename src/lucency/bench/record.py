"""What a benchmark says: measured rows with their bars, the machine, and the table of both."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import polars as pl
from pydantic import Field, PrivateAttr

from lucency.bench.machine import Machine
from lucency.records import Rate, Record

SCHEMA: Literal["lucency/bench/1"] = "lucency/bench/1"
HEADER = ("measured", "value", "unit", "min–max", "bar", "")


class Bar(Record):
    """What a value has to reach. of_interval: an interval that reaches it is enough."""

    kind: Literal["at least", "at most"]
    value: float
    of_interval: bool = False

    def is_met(self, value: float, low: float | None, high: float | None) -> bool:
        """Whether the value, or the end of its interval that is nearest to the bar, is there."""
        if self.kind == "at least":
            end = high if self.of_interval and high is not None else value
            return end >= self.value
        end = low if self.of_interval and low is not None else value
        return end <= self.value

    def __str__(self) -> str:
        sign = "≥" if self.kind == "at least" else "≤"
        return f"{sign} {shown(self.value)}{' within its interval' * self.of_interval}"


def at_least(value: float) -> Bar:
    return Bar(kind="at least", value=value)


def at_most(value: float) -> Bar:
    return Bar(kind="at most", value=value)


class Row(Record):
    """One measured value. low, high: the smallest and largest repeat, or the 95 % interval of a
    share. `None` with a reason where nothing could be measured; that meets no bar."""

    name: str
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    bar: Bar | None = None
    met: bool | None = None
    reason: str | None = None


def row(
    name: str,
    value: float | None,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    bar: Bar | None = None,
    reason: str | None = None,
) -> Row:
    """A row, judged by its bar."""
    met = None if bar is None else value is not None and bar.is_met(value, low, high)
    return Row(
        name=name, value=value, unit=unit, low=low, high=high, bar=bar, met=met, reason=reason
    )


def spread(name: str, values: Sequence[float], unit: str, *, bar: Bar | None = None) -> Row:
    """The median of several repeats, with the smallest and the largest."""
    return row(name, median(values), unit, low=min(values), high=max(values), bar=bar)


class Grid(Record):
    """A table beside the rows, its cells as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        cells = (" | ".join(c.replace("|", "\\|") for c in line) for line in lines)
        return "\n".join((f"### {self.title}", "", *(f"| {line} |" for line in cells)))


class Benchmark(Record):
    """One benchmark on one machine. peer: what it was measured against, in the same run; grids:
    tables beside the rows. scores: the raw scores behind them, kept beside, not in the record."""

    schema_: Literal["lucency/bench/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    title: str
    peer: str
    seed: int
    machine: Machine
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()
    _scores: pl.DataFrame | None = PrivateAttr(default=None)

    @property
    def scores(self) -> pl.DataFrame | None:
        return self._scores

    def with_scores(self, scores: pl.DataFrame) -> Benchmark:
        copy = self.model_copy()
        copy._scores = scores
        return copy

    def as_markdown(self) -> str:
        """The rows as a table, under what was measured, where, and against what."""
        head = (f"## {self.name}: {self.title}", "", f"Against: {self.peer}", "")
        end = ("", *(f"- {note}" for note in self.notes), f"- seed {self.seed}; {self.machine}")
        grids = [part for grid in self.grids for part in ("", grid.as_markdown())]
        return "\n".join((*head, *_table(self.rows), *grids, *end)) + "\n"


def shown(value: float) -> str:
    """Four significant digits at most, and no exponent."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{float(f'{value:.4g}'):.6f}".rstrip("0").rstrip(".")


def shown_rate(value: Rate) -> str:
    """A share with its interval and counts, as a cell of a table."""
    if value.value is None:
        return f"none: {value.reason}"
    counts = f"({value.successes}/{value.trials})"
    if value.low is None or value.high is None:
        return f"{value.value:.2f} {counts}"
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}] {counts}"


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [HEADER, ("---", "--:", "---", "--:", "--:", "---"), *(_cells(r) for r in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _cells(r: Row) -> tuple[str, ...]:
    value = f"none: {r.reason or 'not known'}" if r.value is None else shown(r.value)
    has_range = r.low is not None and r.high is not None
    ends = f"{shown(r.low or 0.0)}–{shown(r.high or 0.0)}" if has_range else ""
    verdict = {None: "", True: "met", False: "**missed**"}[r.met]
    name = r.name.replace("|", "\\|")
    return name, value, r.unit, ends, "" if r.bar is None else str(r.bar), verdict
