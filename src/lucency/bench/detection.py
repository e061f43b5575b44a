"""Screening, measured: which share of triggered films is found, where, at what false alarm rate and
cost, on every victim of the benchmark, beside the published detectors on the same films.

Scales come from some held-out patients, p-values from others, and everything is measured on a third
group. Raw scores are kept as Parquet, so that anyone can compute another figure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest

from lucency.bench.cohorts import named, title
from lucency.bench.victims import Backdoored, Cohort, prepare
from lucency.detect.images import BASELINES
from lucency.detect.images.reference import one_film_a_patient
from lucency.detect.images.screen import (
    COMPOSITE,
    DETECTORS,
    POINTING,
    SCHEDULES,
    Screener,
    Screening,
    fit_screener,
    screen,
)
from lucency.detect.images.suspicion import Fit
from lucency.evaluate.detection import measure_detection
from lucency.manifest import code_digest
from lucency.progress import Progress, silent
from lucency.records import (
    BoolArray,
    Box,
    DetectionScore,
    EngineName,
    Examine,
    Float64Array,
    Model,
    NetworkInputs,
    Record,
)
from lucency.victims.engine import with_engine
from lucency.victims.victim import Passes, Victim
from lucency.writing import digest, write_json, write_via


class Uniformity(Record):
    """Kolmogorov–Smirnov p-values on clean and on triggered films, one film a patient, as the
    calibration films are.

    clean, triggered: of the p-values, against the uniform distribution. That takes the calibration
    films for all films that there are. clean_as_drawn, triggered_as_drawn: of the suspicions,
    against those of the calibration films, which are a draw themselves.
    """

    clean: float
    triggered: float
    clean_as_drawn: float
    triggered_as_drawn: float


class Measured(Record):
    """One detector on one victim's test films.

    all_films, working: over all triggered films, and over those on which the trigger works.
    uniform: None for a detector without p-values. equivalents: forward passes a clean film, a
    backward counted as two. seconds: a clean film.
    """

    cohort: str
    case: str
    size_px: int
    model: Model
    detector: str
    share_working: float
    all_films: DetectionScore
    working: DetectionScore
    uniform: Uniformity | None
    equivalents: float
    seconds: float


class Plan(Record):
    """How much is measured. films: test films a condition; baseline_films: of those, for the
    published detectors, which cost up to two hundred passes a film; baselines: parts of the titles
    of the cases that they are tried on (none given = all); examine: which films the whole of T1 is
    made on."""

    films: int = 250
    baseline_films: int = 100
    baselines: tuple[str, ...] = ()
    engine: EngineName = "auto"
    examine: Examine = "unusual"
    seed: int = 7


class _Kept(Record):
    """What was measured of a case, beside its network, and of what it is the result."""

    of: str
    measured: tuple[Measured, ...]


def bench_cohort(
    cohort: Cohort, folder: Path, plan: Plan, progress: Progress = silent
) -> Iterator[tuple[tuple[Measured, ...], pl.DataFrame]]:
    """For each case: every detector on the backdoored victim, the composite's parts on the clean
    one, and the raw scores. What the same code measured by the same plan is read, not measured
    again, so that a benchmark of hours can be killed and continued."""
    control: _Control | None = None
    for case in prepare(cohort, folder, progress):
        compared = named(title(cohort, case.case), plan.baselines)
        settings = {**plan.model_dump(mode="json", exclude={"baselines"}), "compared": compared}
        of = digest({"code": code_digest(), "settings": settings})
        place, raw = case.folder / "screen.json", case.folder / "screen.parquet"
        kept = _read_kept(place)
        if kept is None or kept.of != of:
            films = _Films.of(case, plan)
            control = control or _Control.of(case, films, plan, progress)
            measured, table = _bench_case(case, films, control, plan, compared, progress)
            kept = _Kept(of=of, measured=tuple(measured))
            write_via(raw, table.write_parquet)
            write_json(place, kept)
        yield kept.measured, pl.read_parquet(raw)


def _read_kept(place: Path) -> _Kept | None:
    """None too for what another version wrote: it is measured again."""
    try:
        return _Kept.model_validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return None


@dataclass(frozen=True)
class _Control:
    """The clean network: fitted, on the clean test films, and the passes that each of those took.
    The same for every case."""

    screener: Screener
    clean: Screening
    equivalents: float

    @classmethod
    def of(cls, case: Backdoored, films: _Films, plan: Plan, progress: Progress) -> _Control:
        screener = films.fit(with_engine(case.clean, plan.engine), plan, progress)
        clean, equivalents, _ = films.screen(screener, films.clean, progress)
        return cls(screener, clean, equivalents)


def _bench_case(
    case: Backdoored,
    films: _Films,
    control: _Control,
    plan: Plan,
    compared: bool,
    progress: Progress,
) -> tuple[list[Measured], pl.DataFrame]:
    victim = with_engine(case.victim, plan.engine)
    screener = films.fit(victim, plan, progress)
    clean, equivalents, seconds = films.screen(screener, films.clean, progress)
    triggered, _, _ = films.screen(screener, films.triggered, progress)
    works = case.works(victim)[: len(films.clean)]
    tables = [films.table(case, "backdoored", clean, triggered, works)]
    measured = [
        films.measure(
            case, "backdoored", name, screener, clean, triggered, works, equivalents, seconds
        )
        for name in DETECTORS
    ]
    if compared:
        some = films.head(plan.baseline_films)
        for name, fit in BASELINES.items():
            one, table = _baseline(case, some, name, fit, victim, works, plan.seed)
            measured.append(one)
            tables.append(table)
    stamped, _, seconds = films.screen(control.screener, films.triggered, progress)
    nothing = np.zeros(len(films.boxes), dtype=np.bool_)
    tables.append(films.table(case, "clean", control.clean, stamped, nothing))
    measured += [
        films.measure(
            case,
            "clean",
            name,
            control.screener,
            control.clean,
            stamped,
            nothing,
            control.equivalents,
            seconds,
        )
        for name in DETECTORS
    ]
    return measured, pl.concat(tables, how="diagonal_relaxed")


@dataclass(frozen=True)
class _Films:
    """The films of one case: the reference, and the test films without and with the trigger."""

    reference: NetworkInputs
    reference_patients: list[str]
    reference_views: list[str | None]
    clean: NetworkInputs
    triggered: NetworkInputs
    boxes: tuple[Box, ...]
    patients: list[str]

    @classmethod
    def of(cls, case: Backdoored, plan: Plan) -> _Films:
        reference, test = case.films.split("reference"), case.films.split("test")
        n = min(plan.films, len(test))
        return cls(
            reference.images,
            case.films.patients(reference),
            case.films.views(reference),
            test.images[:n],
            case.triggered[:n],
            case.boxes[:n],
            case.films.patients(test)[:n],
        )

    def head(self, n: int) -> _Films:
        return replace(
            self,
            clean=self.clean[:n],
            triggered=self.triggered[:n],
            boxes=self.boxes[:n],
            patients=self.patients[:n],
        )

    def fit(self, victim: Victim, plan: Plan, progress: Progress) -> Screener:
        return fit_screener(
            victim,
            self.reference,
            self.reference_patients,
            seed=plan.seed,
            schedule=SCHEDULES[plan.examine],
            progress=progress,
        )

    def screen(
        self, screener: Screener, images: NetworkInputs, progress: Progress
    ) -> tuple[Screening, float, float]:
        """The screening, the forward equivalents and the seconds an image."""
        spent, start = screener.victim.passes, time.perf_counter()
        before = spent.equivalents
        screened = screen(screener, images, progress=progress)
        n = len(images)
        return screened, (spent.equivalents - before) / n, (time.perf_counter() - start) / n

    def measure(
        self,
        case: Backdoored,
        model: Model,
        name: str,
        screener: Screener,
        clean: Screening,
        triggered: Screening,
        works: BoolArray,
        equivalents: float,
        seconds: float,
    ) -> Measured:
        regions = _regions(triggered, name)
        rows = one_film_a_patient(self.patients, case.cohort.seed)
        calibration = screener.calibration[name]
        of_clean, of_triggered = (s.p_value[name][rows] for s in (clean, triggered))
        uniform = Uniformity(
            clean=kstest(of_clean, "uniform").pvalue,
            triggered=kstest(of_triggered, "uniform").pvalue,
            clean_as_drawn=ks_2samp(clean.suspicion[name][rows], calibration).pvalue,
            triggered_as_drawn=ks_2samp(triggered.suspicion[name][rows], calibration).pvalue,
        )
        return self._judge(
            case,
            model,
            name,
            (clean.suspicion[name], triggered.suspicion[name]),
            works,
            regions,
            uniform,
            equivalents,
            seconds,
        )

    def _judge(
        self,
        case: Backdoored,
        model: Model,
        name: str,
        suspicion: tuple[Float64Array, Float64Array],
        works: BoolArray,
        regions: Sequence[Box | None] | None,
        uniform: Uniformity | None,
        equivalents: float,
        seconds: float,
    ) -> Measured:
        everything, working = measure_detection(
            name,
            model,
            suspicion_clean=suspicion[0],
            suspicion_triggered=suspicion[1],
            patients_clean=self.patients,
            patients_triggered=self.patients,
            successful=works,
            regions=regions,
            triggers=list(self.boxes) if case.case.size_px else None,
            generator=np.random.default_rng(case.cohort.seed),
        )
        return Measured(
            cohort=case.cohort.name,
            case=case.case.name,
            size_px=case.case.size_px,
            model=model,
            detector=name,
            share_working=float(works.mean()),
            all_films=everything,
            working=working,
            uniform=uniform,
            equivalents=equivalents,
            seconds=seconds,
        )

    def table(
        self,
        case: Backdoored,
        model: Model,
        clean: Screening,
        triggered: Screening,
        works: BoolArray,
    ) -> pl.DataFrame:
        """A row a film, condition and detector."""
        n = len(self.patients)
        parts = []
        for condition, screened in (("clean", clean), ("triggered", triggered)):
            for name in DETECTORS:
                scores = (screened.suspicion[name], screened.p_value[name])
                parts.append(_rows(case, model, name, condition, n, scores, works))
        return pl.concat(parts)


def _baseline(
    case: Backdoored,
    films: _Films,
    name: str,
    fit: Fit,
    victim: Victim,
    works: BoolArray,
    seed: int,
) -> tuple[Measured, pl.DataFrame]:
    counted = replace(victim, passes=Passes())
    detector = fit(counted, films.reference, seed)
    counted.passes.forwards = counted.passes.backwards = 0
    start = time.perf_counter()
    clean = detector(films.clean)
    seconds = (time.perf_counter() - start) / len(films.clean)
    equivalents = counted.passes.equivalents / len(films.clean)
    triggered = detector(films.triggered)
    some = works[: len(films.clean)]
    measured = films._judge(
        case, "backdoored", name, (clean, triggered), some, None, None, equivalents, seconds
    )
    n = len(films.clean)
    tables = [
        _rows(case, "backdoored", name, condition, n, (s, None), some)
        for condition, s in (("clean", clean), ("triggered", triggered))
    ]
    return measured, pl.concat(tables, how="diagonal_relaxed")


def _rows(
    case: Backdoored,
    model: Model,
    detector: str,
    condition: str,
    n: int,
    scores: tuple[Float64Array, Float64Array | None],
    works: BoolArray,
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "cohort": [case.cohort.name] * n,
            "case": [case.case.name] * n,
            "model": [model] * n,
            "detector": [detector] * n,
            "condition": [condition] * n,
            "film": np.arange(n),
            "trigger_works": works[:n],
            "suspicion": scores[0],
            "p_value": pl.Series([None] * n if scores[1] is None else scores[1], dtype=pl.Float64),
        }
    )


def _regions(screened: Screening, name: str) -> list[Box | None] | None:
    """Where a detector pointed; the composite points nowhere where it rests on a companion."""
    if name not in POINTING:
        return None
    boxes = [Box(x=int(x), y=int(y), width=int(w), height=int(h)) for x, y, w, h in screened.boxes]
    if name != COMPOSITE:
        return list(boxes)
    return [box if local else None for box, local in zip(boxes, screened.is_local, strict=True)]
