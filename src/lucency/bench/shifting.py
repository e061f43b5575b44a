"""`lucency bench shift`: suspects that are not of the kind of the reference films. Whether the test
of shift says so, what p-values are then worth, and what the suspects' own majority mends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

from lucency.bench.cohorts import cohorts_of, title
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark, Grid, Row, at_least, at_most, row, shown_rate
from lucency.bench.stamping import stamp_films
from lucency.bench.victims import WORKS, Backdoored, prepare
from lucency.detect.images.screen import COMPOSITE, Screener, Screening, fit_screener, screen
from lucency.detect.images.shift import (
    NOTICED,
    Basis,
    Shift,
    describe,
    describe_reference,
    names,
    own_majority,
    shift,
)
from lucency.evaluate.rates import rate
from lucency.progress import Progress, silent
from lucency.records import FloatArray, IntArray, NetworkInputs
from lucency.victims.engine import with_engine
from lucency.victims.victim import Victim

NAME = "shift"
PEER = "the same suspects as they are, against the same reference films"
ALPHA = 0.05
TRIGGERED = 0.1
"""Share of triggered films among the suspects: what a majority has to be told from."""
HEADER = (
    "films and trigger",
    "suspects",
    "shift, p",
    "distance",
    "differs most in",
    "p ≤ 0.5, ÷ 0.5",
    "false alarms at 5 %",
    "found at 5 %, works",
    "false alarms, own majority",
    "found, own majority",
)


def bench_shift(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    data: Path | None = None,
    sizes: Sequence[int] = (128,),
    only: Sequence[str] = (),
) -> Benchmark:
    """Screen other kinds of suspects with each backdoored network. Parameters and errors as
    `bench_screen`. Bars: a shift is noticed, and none where there is none; false alarms have no
    bar, since nothing is promised for films of another kind."""
    machine = describe_machine()
    told = [
        one
        for cohort in cohorts_of(data, sizes, only)
        for case in prepare(cohort, victims, progress)
        for one in _told(case, seed, progress)
    ]
    return Benchmark(
        name=NAME,
        title="suspects of another kind than the reference films",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={"alpha": ALPHA, "triggered": TRIGGERED},
        rows=tuple(noticed for noticed, _ in told),
        grids=(
            Grid(
                title="On backdoored networks",
                header=HEADER,
                rows=tuple(cells for _, cells in told),
            ),
        ),
        notes=(
            f"Suspects: test films of other patients, and {TRIGGERED:.0%} of them a second time "
            f"with the trigger. A trigger works where it moves the target's logit by {WORKS:g} "
            "standard deviations of its clean logits. False alarms are of the films without the "
            "trigger. Intervals: 95 %, by patient.",
        ),
    )


@dataclass(frozen=True)
class _Kind:
    """Suspects of one kind: which reference and test films, and what is done to the suspects.
    is_other: whether they are of another kind than the reference."""

    name: str
    is_other: bool
    reference: IntArray
    test: IntArray
    change: Callable[[NetworkInputs], NetworkInputs]


def _kinds(case: Backdoored) -> Iterator[_Kind]:
    reference, test = (case.films.split(s) for s in ("reference", "test"))
    every = np.arange(len(reference)), np.arange(len(test))
    yield _Kind("as they are", False, *every, _same)
    yield _Kind("darker: gamma 1.5", True, *every, lambda images: _gamma(images, 1.5))
    yield _Kind("brighter: gamma 0.7", True, *every, lambda images: _gamma(images, 0.7))
    yield _Kind("softer: half the resolution", True, *every, _half)
    known, pa, ap = (
        np.array([i for i, v in enumerate(case.films.views(films)) if v == view], dtype=np.int64)
        for films, view in ((reference, "PA"), (test, "PA"), (test, "AP"))
    )
    if len(known) and len(ap):
        yield _Kind("PA, as the reference", False, known, pa, _same)
        yield _Kind("AP, reference PA", True, known, ap, _same)


def _same(images: NetworkInputs) -> NetworkInputs:
    return images


def _gamma(images: NetworkInputs, gamma: float) -> NetworkInputs:
    full = np.iinfo(images.dtype).max
    changed: NetworkInputs = np.empty_like(images)
    changed[:] = np.round(full * (images / full) ** gamma)
    return changed


def _half(images: NetworkInputs) -> NetworkInputs:
    grey = torch.from_numpy(images.astype(np.float32))[:, None]
    soft = interpolate(avg_pool2d(grey, 2), size=grey.shape[2:], mode="bilinear")
    changed: NetworkInputs = np.empty_like(images)
    changed[:] = np.round(soft[:, 0].numpy())
    return changed


def _told(case: Backdoored, seed: int, progress: Progress) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Of each kind: whether it was noticed, and a line of the table."""
    victim = with_engine(case.victim, "auto")
    fitted: dict[bytes, _Fitted] = {}
    for kind in _kinds(case):
        key = kind.reference.tobytes()
        if key not in fitted:
            fitted[key] = _Fitted.of(case, kind.reference, victim, seed, progress)
        yield _tell(case, kind, fitted[key], seed, progress)


@dataclass(frozen=True)
class _Fitted:
    """A screener, and what its calibration films are like (n, d)."""

    screener: Screener
    basis: Basis
    described: FloatArray

    @classmethod
    def of(
        cls, case: Backdoored, rows: IntArray, victim: Victim, seed: int, progress: Progress
    ) -> _Fitted:
        reference = case.films.split("reference")
        films, every = reference.images[rows], case.films.patients(reference)
        patients = [every[row] for row in rows]
        screener = fit_screener(victim, films, patients, seed=seed, alpha=ALPHA, progress=progress)
        calibration = screener.calibrated
        basis, described = describe_reference(
            films[screener.rows], calibration.logits, calibration.features
        )
        return cls(screener, basis, described)


def _tell(
    case: Backdoored, kind: _Kind, fitted: _Fitted, seed: int, progress: Progress
) -> tuple[Row, tuple[str, ...]]:
    films, screener = case.films.split("test"), fitted.screener
    clean = kind.change(films.images[kind.test])
    generator = np.random.default_rng([seed, 0x5117])
    some = generator.permutation(len(clean))[: max(1, round(TRIGGERED * len(clean)))]
    triggered, _ = stamp_films(case.case.trigger, clean[some], generator)
    works = case.works_on(screener.victim, clean, some, triggered)
    suspects = np.concatenate([clean, triggered])
    screened = screen(screener, suspects, progress=progress)
    suspicion, calibration = screened.suspicion[COMPOSITE], screener.calibration[COMPOSITE]
    every = case.films.patients(films)
    patients = [every[row] for row in kind.test]
    told = []
    for p_values in (screened.p_value[COMPOSITE], own_majority(calibration, suspicion, suspicion)):
        flagged = p_values <= ALPHA
        told.append(shown_rate(rate(flagged[: len(clean)], patients, generator)))
        told.append(f"{int(flagged[len(clean) :][works].sum())}/{int(works.sum())}")
    name, found = title(case.cohort, case.case), _shift(fitted, suspects, screened, seed)
    p_value, reason = (None, found) if isinstance(found, str) else (found.p_value, None)
    bar = at_most(NOTICED) if kind.is_other else at_least(NOTICED)
    noticed = row(f"{name}, {kind.name}: p of a shift", p_value, bar=bar, reason=reason)
    return noticed, (name, kind.name, *_shown(found), *told)


def _shift(fitted: _Fitted, suspects: NetworkInputs, screened: Screening, seed: int) -> Shift | str:
    described = describe(fitted.basis, suspects, screened.logits, screened.features)
    return shift(
        fitted.described,
        described,
        names(fitted.screener.victim.findings, described.shape[1]),
        reference_suspicion=fitted.screener.calibration[COMPOSITE],
        suspicion=screened.suspicion[COMPOSITE],
        seed=seed,
    )


def _shown(found: Shift | str) -> tuple[str, str, str, str]:
    """p-value, distance, what differs most, and the inflation."""
    if isinstance(found, str):
        return found, "", "", ""
    name, value = next(iter(found.differences.items()))
    difference = f"{name}, {value:+.1f} SD"
    return f"{found.p_value:.3f}", f"{found.distance:.2f}", difference, f"{found.inflation:.2f}"
