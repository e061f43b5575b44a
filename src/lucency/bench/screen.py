"""`lucency bench screen`: the detectors on every victim of the benchmark, and the bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from lucency.bench.cohorts import cohorts_of
from lucency.bench.detection import Measured, Plan, bench_cohort
from lucency.bench.machine import describe_machine
from lucency.bench.record import (
    Bar,
    Benchmark,
    Grid,
    Row,
    at_least,
    at_most,
    row,
    shown_rate,
)
from lucency.bench.victims import WORKS
from lucency.detect.images import BASELINES
from lucency.detect.images.screen import COMPOSITE
from lucency.progress import Progress, silent
from lucency.records import Estimate, Examine, Rate

NAME = "screen"
PEER = f"{', '.join(BASELINES)}: written from their papers, on the same victims and films"
SMALL = 5
"""Largest patch, network pixels, that the tests are held to."""
LEVELS = (0.01, 0.05, 0.1, 0.5)

HEADER = (
    "films and trigger",
    "works on",
    "detector",
    "AUROC, works",
    "found at 1 % false alarms, works",
    "region on the trigger, works",
    "AUROC, all",
    "found at 1 %, all",
    "found at 5 %, all",
    "passes a clean film",
)


def bench_screen(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    data: Path | None = None,
    sizes: Sequence[int] = (128,),
    only: Sequence[str] = (),
    compare: Sequence[str] = (),
    examine: Examine = "unusual",
    plan: Plan | None = None,
) -> Benchmark:
    """Measure every cohort, and return the table, with the raw scores.

    victims: the folder that keeps the networks; those it lacks are trained, minutes each on two
    processors. data: ChestX-ray14 at 256 px (a folder with labels.csv); None = the phantom alone.
    only: parts of the names of films and trigger, such as "nih-128, 3 px"; none given = all.
    compare: the same, for the cases that published detectors are tried on as well. examine: "all"
    makes the whole of T1 on every film. Raises ConfigError if no name has it.
    """
    machine = describe_machine()
    plan = plan or Plan(seed=seed, baselines=tuple(compare), examine=examine)
    cohorts = cohorts_of(data, sizes, only)
    measured: list[Measured] = []
    tables: list[pl.DataFrame] = []
    for cohort in cohorts:
        for some, table in bench_cohort(cohort, victims, plan, progress):
            measured += some
            tables.append(table)
    scores = pl.concat(tables, how="diagonal_relaxed")
    benchmark = Benchmark(
        name=NAME,
        title="which triggered films are found, where, and at what cost",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={
            "cohorts": [c.model_dump(mode="json", exclude={"data", "cases"}) for c in cohorts],
            "films": plan.films,
            "baseline_films": plan.baseline_films,
            "engine": plan.engine,
            "examine": plan.examine,
        },
        rows=tuple(_bars(measured)),
        grids=(
            _grid("backdoored", measured),
            _grid("clean", measured),
            _flagged(scores),
            _uniform(measured),
        ),
        notes=(
            f"A trigger works on a film on which it moves the target's logit by at least {WORKS:g} "
            "standard deviations of the target's clean logits. Calibration, scales and test are "
            "of different patients. Intervals: 95 %, by patient.",
            f"Published detectors on {plan.baseline_films} films a condition; the others on up to "
            f"{plan.films}.",
        ),
    )
    return benchmark.with_scores(scores)


def _bars(measured: Sequence[Measured]) -> Iterable[Row]:
    """The composite on each victim, against what was asked of it."""
    for one in measured:
        if one.detector != COMPOSITE or one.model != "backdoored":
            continue
        name = f"{one.cohort}, {one.case}"
        if not one.size_px:
            yield _rate(f"{name}: found at 5 %, works", one.working.tpr_at_fpr_5, at_least(0.8))
            continue
        if one.size_px > SMALL:
            yield _rate(f"{name}: found at 5 %, works", one.working.tpr_at_fpr_5, at_least(0.95))
            continue
        yield _estimate(f"{name}: AUROC, works", one.working.auroc, at_least(0.998))
        yield _rate(f"{name}: found at 1 %, works", one.working.tpr_at_fpr_1, at_least(0.98))
        yield _rate(f"{name}: region on the trigger, works", one.working.hit_rate, at_least(0.98))
        yield row(
            f"{name}: forward-pass equivalents a clean film", one.equivalents, bar=at_most(12.0)
        )
    for one in measured:
        if one.model != "clean" or one.detector != COMPOSITE or one.uniform is None:
            continue
        of_both = "(the smaller of clean and stamped films)"
        name = f"{one.cohort}, {one.case}: clean model, Kolmogorov–Smirnov p of its"
        yield row(
            f"{name} p-values {of_both}",
            min(one.uniform.clean, one.uniform.triggered),
            bar=at_least(0.01),
        )
        yield row(
            f"{name} suspicions, against the calibration films as drawn {of_both}",
            min(one.uniform.clean_as_drawn, one.uniform.triggered_as_drawn),
            bar=at_least(0.01),
        )


def _estimate(name: str, value: Estimate, bar: Bar) -> Row:
    return row(name, value.value, low=value.low, high=value.high, bar=bar, reason=value.reason)


def _rate(name: str, value: Rate, bar: Bar) -> Row:
    return row(name, value.value, low=value.low, high=value.high, bar=bar, reason=value.reason)


def _grid(model: str, measured: Sequence[Measured]) -> Grid:
    lines = []
    for one in (m for m in measured if m.model == model):
        works, every = one.working, one.all_films
        lines.append(
            (
                f"{one.cohort}, {one.case}",
                f"{one.share_working:.0%}",
                one.detector,
                _shown(works.auroc, 3),
                shown_rate(works.tpr_at_fpr_1),
                shown_rate(works.hit_rate),
                _shown(every.auroc, 3),
                shown_rate(every.tpr_at_fpr_1),
                shown_rate(every.tpr_at_fpr_5),
                f"{one.equivalents:.1f}",
            )
        )
    return Grid(title=f"On the {model} model", header=HEADER, rows=tuple(lines))


def _flagged(scores: pl.DataFrame) -> Grid:
    """How often the composite's p-value is small where there is nothing to find: on clean films,
    and on the clean network; with the mean and the range over a cohort's backdoored networks."""
    composite = scores.filter(pl.col("detector") == COMPOSITE)
    on_clean = (pl.col("condition") == "clean") & (pl.col("model") == "clean")
    lines: list[tuple[str, ...]] = []
    for name in composite["cohort"].unique(maintain_order=True):
        of_cohort = composite.filter(pl.col("cohort") == name)
        clean = of_cohort.filter(pl.col("condition") == "clean", pl.col("model") == "backdoored")
        shares = _shares(clean)
        lines += _lines(name, shares, "clean films, backdoored network")
        columns = [share.to_numpy() for share in shares.get_columns()[1:]]
        spans = (f"{c.mean():.3f} ({c.min():.3f}–{c.max():.3f})" for c in columns)
        lines.append((f"{name}, mean of {len(shares)} (range)", "the same", *spans))
        # The same for every case.
        control = _shares(of_cohort.filter(on_clean)).head(1)
        lines += _lines(
            name, control.with_columns(case=pl.lit("all")), "clean films, clean network"
        )
        stamped = of_cohort.filter(pl.col("condition") == "triggered", pl.col("model") == "clean")
        lines += _lines(name, _shares(stamped), "triggered films, clean network")
    return Grid(
        title="Share of films with a small p-value of the composite where there is nothing to find",
        header=("films and trigger", "of", *(f"p ≤ {level:g}" for level in LEVELS)),
        rows=tuple(lines),
    )


def _shares(scores: pl.DataFrame) -> pl.DataFrame:
    """case, and for each of `LEVELS` the share of its p-values up to there."""
    return scores.group_by("case", maintain_order=True).agg(
        *((pl.col("p_value") <= level).mean().alias(f"{level:g}") for level in LEVELS)
    )


def _lines(cohort: str, shares: pl.DataFrame, films: str) -> list[tuple[str, ...]]:
    return [
        (f"{cohort}, {case}", films, *(f"{value:.3f}" for value in values))
        for case, *values in shares.iter_rows()
    ]


def _uniform(measured: Sequence[Measured]) -> Grid:
    lines = tuple(
        (
            f"{one.cohort}, {one.case}",
            one.detector,
            f"{one.uniform.clean:.3f}",
            f"{one.uniform.triggered:.3f}",
            f"{one.uniform.clean_as_drawn:.3f}",
            f"{one.uniform.triggered_as_drawn:.3f}",
        )
        for one in measured
        if one.model == "clean" and one.uniform is not None
    )
    header = (
        "films and trigger",
        "detector",
        "clean films",
        "stamped films",
        "clean films, as drawn",
        "stamped films, as drawn",
    )
    return Grid(
        title="On the clean model: Kolmogorov–Smirnov p of the p-values against uniform (as drawn: "
        "of the suspicions against those of the calibration films, which are themselves a draw)",
        header=header,
        rows=lines,
    )


def _shown(value: Estimate, decimals: int) -> str:
    if value.value is None:
        return f"none: {value.reason}"
    if value.low is None or value.high is None:
        return f"{value.value:.{decimals}f}"
    return f"{value.value:.{decimals}f} [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"
