"""`lucency bench audit`: the audit on every model of a zoo, beside Neural Cleanse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from lucency.bench.cohorts import named
from lucency.bench.machine import describe_machine
from lucency.bench.record import Bar, Benchmark, Grid, Row, at_least, at_most, row, shown_rate
from lucency.detect.models import TESTS
from lucency.detect.models.audit import audit
from lucency.detect.models.neural_cleanse import Cleanse, anomaly_index, cleanse
from lucency.detect.models.subject import DIRECTIONS, Subject, subject
from lucency.errors import ConfigError
from lucency.evaluate.detection import measure_detection
from lucency.evaluate.rates import rate
from lucency.manifest import read_json
from lucency.progress import Progress, silent
from lucency.records import Box, Estimate, Rate
from lucency.victims.card import load_victim
from lucency.victims.engine import with_engine
from lucency.victims.victim import Passes
from lucency.zoo.build import FILMS, ZOO
from lucency.zoo.record import Member, ZooReport

NAME = "audit"
PEER = "Neural Cleanse, one finding and direction after another, on the same models and films"
N_FILMS = 64
TAKES = 0.5
"""Attack success from which a planted backdoor is one."""
NEAR = 3.0
"""Network pixels between the centres of a recovered trigger and of the planted one."""
ALPHA = 0.01
COMPARED = Cleanse(steps=100, films=16)
"""Neural Cleanse with a tenth of its published steps and half of its films, or a pool takes days;
it needs the more passes with all of them."""


@dataclass(frozen=True)
class Audited:
    """One model of the zoo: what the audit and its peer say. cleanse: the largest anomaly index;
    distance: from the planted trigger's centre, network pixels, None where either has no place."""

    member: Member
    p_value: float
    statistic: float
    finding: str
    direction: str
    distance: float | None
    passes: Passes
    seconds: float
    cleanse: float | None
    cleanse_passes: Passes

    @property
    def is_right(self) -> bool:
        planted = self.member.planted
        return planted is not None and (planted.finding, planted.direction) == (
            self.finding,
            self.direction,
        )


def bench_audit(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    only: Sequence[str] = (),
    compare: bool = True,
    **_: Any,
) -> Benchmark:
    """Audit every model of the zoo in the folder `victims`. Raises ConfigError if there is none."""
    machine = describe_machine()
    if not (victims / ZOO).exists():
        raise ConfigError(
            f"--victims must name a folder that `lucency zoo build` has finished, got {victims}."
        )
    members = [m for m in read_json(victims / ZOO, ZooReport).members if named(m.name, only)]
    found = []
    with progress("Audits", len(members)) as advance:
        for member in members:
            found.append(_audit(victims, member, seed, compare))
            advance(1)
    benchmark = Benchmark(
        name=NAME,
        title=f"{len(found)} models, {sum(f.member.planted is not None for f in found)} backdoored",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={"films": N_FILMS, "alpha": ALPHA, "neural_cleanse": COMPARED.__dict__},
        rows=_rows(found, seed),
        grids=(_grid(found),),
        notes=(
            "Models are the units: intervals are over models. A planted backdoor counts where its "
            f"attack success is at least {TAKES:.0%}.",
            f"Neural Cleanse with {COMPARED.steps} steps of {COMPARED.films} films for each "
            "finding and direction, one after another; published are 1000 steps of 32.",
        ),
    )
    return benchmark.with_scores(pl.DataFrame([_score(f) for f in found]))


def _audit(folder: Path, member: Member, seed: int, compare: bool) -> Audited:
    victim = with_engine(load_victim(folder / member.folder))
    model = subject(victim, load_file(folder / member.films)[FILMS][:N_FILMS])
    started, before = time.perf_counter(), replace(victim.passes)
    found = audit(model, TESTS, seed=seed)
    seconds, spent = time.perf_counter() - started, victim.passes.since(before)
    suspicion = found.null.standardised.max(axis=2)
    direction, finding = (int(i) for i in np.unravel_index(suspicion.argmax(), suspicion.shape))
    trigger = found.trigger(direction, finding)
    box = trigger[1].box if trigger else None
    before, index = replace(victim.passes), None
    if compare:
        index = float(anomaly_index(_areas(model, seed)).max())
    return Audited(
        member,
        found.null.p_value,
        found.null.statistic,
        victim.findings[finding],
        DIRECTIONS[direction],
        _distance(box, member.planted.box if member.planted else None),
        spent,
        seconds,
        index,
        victim.passes.since(before),
    )


def _areas(model: Subject, seed: int) -> np.ndarray:
    items = np.ndindex(2, model.n_findings)
    return np.array([cleanse(model, [item], seed, COMPARED).area[0] for item in items])


def _distance(found: Box | None, planted: Box | None) -> float | None:
    if found is None or planted is None:
        return None
    (x, y), (u, v) = ((box.x + box.width / 2, box.y + box.height / 2) for box in (found, planted))
    return float(np.hypot(x - u, y - v))


def _rows(found: Sequence[Audited], seed: int) -> tuple[Row, ...]:
    clean = [f for f in found if f.member.planted is None]
    works = [f for f in found if _works(f)]
    patches = [f for f in works if f.member.planted and f.member.planted.kind == "patch"]
    placed = [f for f in patches if f.distance is not None and f.p_value <= ALPHA]
    with_cleanse = [f for f in found if f.cleanse is not None]
    rows = [
        _auroc("ROC-AUC, patches", clean, patches, 0.98, seed),
        _auroc("ROC-AUC, all triggers", clean, works, 0.85, seed),
        _share("right finding and direction", [f.is_right for f in works], seed, at_least(0.9)),
        _share(f"evidence at α = {ALPHA:g}, patches", [f.p_value <= ALPHA for f in patches], seed),
        _share(f"evidence at α = {ALPHA:g}, all", [f.p_value <= ALPHA for f in works], seed),
        _share(
            "recovered patch within 3 px, fixed places, of those with evidence",
            [(f.distance or 0.0) <= NEAR for f in placed],
            seed,
            at_least(0.9),
        ),
        _false_alarms(clean, ALPHA, seed),
        _false_alarms(clean, 0.05, seed),
    ]
    if with_cleanse:
        ours = float(np.mean([f.passes.equivalents for f in with_cleanse]))
        theirs = float(np.mean([f.cleanse_passes.equivalents for f in with_cleanse]))
        rows += [
            _auroc("ROC-AUC, patches, Neural Cleanse", clean, patches, None, seed, cleansed=True),
            _auroc("ROC-AUC, all, Neural Cleanse", clean, works, None, seed, cleansed=True),
            row("forward equivalents a model", ours, "passes"),
            row("fewer than Neural Cleanse by", theirs / ours, "×", bar=at_least(5)),
        ]
    rows.append(row("seconds a model", float(np.median([f.seconds for f in found])), "s"))
    return tuple(rows)


def _works(f: Audited) -> bool:
    planted = f.member.planted
    return planted is not None and (planted.success.value or 0.0) >= TAKES


def _auroc(
    name: str,
    clean: Sequence[Audited],
    backdoored: Sequence[Audited],
    bar: float | None,
    seed: int,
    *,
    cleansed: bool = False,
) -> Row:
    def of(f: Audited) -> float:
        return float(f.cleanse or 0.0) if cleansed else f.statistic

    if not clean or not backdoored:
        return row(name, None, reason="no such model in the pool")
    score, _ = measure_detection(
        NAME,
        "backdoored",
        suspicion_clean=[of(f) for f in clean],
        suspicion_triggered=[of(f) for f in backdoored],
        patients_clean=[f.member.folder for f in clean],
        patients_triggered=[f.member.folder for f in backdoored],
        successful=np.ones(len(backdoored), np.bool_),
        regions=None,
        triggers=None,
        generator=np.random.default_rng([seed, 0xA0]),
    )
    value: Estimate = score.auroc
    wanted = None if bar is None else at_least(bar)
    return row(name, value.value, low=value.low, high=value.high, bar=wanted, reason=value.reason)


def _share(name: str, outcomes: Sequence[bool], seed: int, bar: Bar | None = None) -> Row:
    value = _rate(outcomes, seed)
    return row(
        f"{name} ({value.successes} of {value.trials})",
        value.value,
        low=value.low,
        high=value.high,
        bar=bar,
        reason=value.reason,
    )


def _false_alarms(clean: Sequence[Audited], alpha: float, seed: int) -> Row:
    bar = at_most(alpha).model_copy(update={"of_interval": True})
    return _share(f"false alarms at α = {alpha:g}", [f.p_value <= alpha for f in clean], seed, bar)


def _rate(outcomes: Sequence[bool], seed: int) -> Rate:
    models = [str(i) for i in range(len(outcomes))]
    generator = np.random.default_rng([seed, 0xA1])
    return rate(np.array(outcomes, np.bool_), models, generator, reason="no such model")


def _grid(found: Sequence[Audited]) -> Grid:
    return Grid(
        title="Every model",
        header=("model", "attack success", "p", "stands out by", "names", "off by, px", "cleanse"),
        rows=tuple(
            (
                f.member.name,
                "–" if f.member.planted is None else shown_rate(f.member.planted.success),
                f"{f.p_value:.4f}",
                f"{f.statistic:.1f}",
                f"{f.direction} {f.finding}{', right' if f.is_right else ''}",
                "–" if f.distance is None else f"{f.distance:.1f}",
                "–" if f.cleanse is None else f"{f.cleanse:.1f}",
            )
            for f in found
        ),
    )


def _score(f: Audited) -> dict[str, Any]:
    return {
        "model": f.member.name,
        "backdoored": f.member.planted is not None,
        "kind": f.member.planted.kind if f.member.planted else None,
        "p_value": f.p_value,
        "statistic": f.statistic,
        "finding": f.finding,
        "direction": f.direction,
        "right": f.is_right,
        "distance": f.distance,
        "forwards": f.passes.forwards,
        "backwards": f.passes.backwards,
        "seconds": f.seconds,
        "cleanse": f.cleanse,
        "cleanse_forwards": f.cleanse_passes.forwards,
        "cleanse_backwards": f.cleanse_passes.backwards,
    }
