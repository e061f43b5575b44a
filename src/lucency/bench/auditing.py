"""`lucency bench audit`: the audit on every model of a zoo, beside Neural Cleanse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load_file

from lucency.bench.cohorts import named
from lucency.bench.machine import describe_machine
from lucency.bench.record import Bar, Benchmark, Grid, Row, at_least, at_most, row, shown_rate
from lucency.detect.models import TESTS
from lucency.detect.models.audit import Made, audit
from lucency.detect.models.neural_cleanse import Cleanse, anomaly_index, cleanse
from lucency.detect.models.null import Null
from lucency.detect.models.subject import DIRECTIONS, Subject, subject
from lucency.errors import ConfigError
from lucency.evaluate.detection import measure_detection
from lucency.evaluate.rates import rate
from lucency.manifest import code_digest, read_json
from lucency.progress import Progress, silent
from lucency.records import Box, Estimate, Float64Array, Rate, Record
from lucency.runs import digest, write_json
from lucency.sweep import n_processors
from lucency.victims.card import load_victim
from lucency.victims.engine import with_engine
from lucency.zoo.build import FILMS, ZOO
from lucency.zoo.record import Member, ZooReport

NAME = "audit"
KEPT = "audits"
"""Folder of the zoo that keeps the outcome of every audit."""
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


class Alone(Record):
    """One test of an audit by itself: what it names, its statistic, and whether that is right."""

    test: str
    statistic: float
    p_value: float
    is_right: bool
    passes: float
    seconds: float


class Audited(Record):
    """One model of the zoo: what the audit and its peer say. distance: from the planted trigger's
    centre, network pixels, None where either has no place. passes: in forward equivalents. cleanse:
    the largest anomaly index, and its passes; None where it was not compared."""

    member: Member
    p_value: float
    statistic: float
    finding: str
    direction: str
    distance: float | None
    forwards: int
    backwards: int
    passes: float
    seconds: float
    tests: tuple[Alone, ...]
    cleanse: float | None
    cleanse_passes: float

    @property
    def is_right(self) -> bool:
        return _is_planted(self.member, self.finding, self.direction)

    @property
    def network(self) -> str:
        return f"{self.member.architecture}, {self.member.size} px"


@dataclass(frozen=True)
class _Task:
    folder: Path
    member: Member
    seed: int
    tests: tuple[str, ...]
    cleanse: Cleanse | None

    @property
    def kept(self) -> Path:
        """Where the outcome lies: by the code and all that it depends on, so that a benchmark that
        was killed goes on."""
        asked = {
            "member": self.member,
            "seed": self.seed,
            "films": N_FILMS,
            "tests": self.tests,
            "cleanse": None if self.cleanse is None else asdict(self.cleanse),
            "code": code_digest(),
        }
        return self.folder / KEPT / f"{digest(asked)[:16]}.json"


def bench_audit(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    only: Sequence[str] = (),
    compare: bool = True,
    **_: Any,
) -> Benchmark:
    """Audit every model of the zoo in the folder `victims`, a process a processor. Raises
    ConfigError if there is none."""
    machine = describe_machine()
    if not (victims / ZOO).exists():
        raise ConfigError(
            f"--victims must name a folder that `lucency zoo build` has finished, got {victims}."
        )
    members = [m for m in read_json(victims / ZOO, ZooReport).members if named(m.name, only)]
    cleanse = COMPARED if compare else None
    tasks = [_Task(victims, member, seed, tuple(TESTS), cleanse) for member in members]
    (victims / KEPT).mkdir(exist_ok=True)
    workers = ProcessPoolExecutor(
        n_processors(),
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    with progress("Audits", len(tasks)) as advance, workers:
        for done in as_completed([workers.submit(_carry_out, task) for task in tasks]):
            done.result()
            advance(1)
    found = [read_json(task.kept, Audited) for task in tasks]
    benchmark = Benchmark(
        name=NAME,
        title=f"{len(found)} models, {sum(f.member.planted is not None for f in found)} backdoored",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={"films": N_FILMS, "alpha": ALPHA, "neural_cleanse": COMPARED.__dict__},
        rows=_rows(found, seed),
        grids=(_by_test(found, seed), _by_network(found, seed), _grid(found)),
        notes=(
            "Models are the units: intervals are over models. A planted backdoor counts where its "
            f"attack success is at least {TAKES:.0%}.",
            f"Neural Cleanse with {COMPARED.steps} steps of {COMPARED.films} films for each "
            "finding and direction, one after another; published are 1000 steps of 32.",
            "Seconds are of one thread, with as many audits beside each other as processors.",
        ),
    )
    return benchmark.with_scores(pl.DataFrame([_score(f) for f in found]))


def _carry_out(task: _Task) -> None:
    """Audit a model and keep what it says, unless that was done before."""
    if not task.kept.exists():
        write_json(task.kept, _audit(task))


def _audit(task: _Task) -> Audited:
    member, folder = task.member, task.folder
    victim = with_engine(load_victim(folder / member.folder))
    model = subject(victim, load_file(folder / member.films)[FILMS][:N_FILMS])
    started, before = time.perf_counter(), replace(victim.passes)
    found = audit(model, {name: TESTS[name] for name in task.tests}, seed=task.seed)
    seconds, spent = time.perf_counter() - started, victim.passes.since(before)
    direction, finding = _most(found.null)
    trigger = found.trigger(direction, finding)
    box = trigger[1].box if trigger else None
    before, index = replace(victim.passes), None
    if task.cleanse is not None:
        index = float(anomaly_index(_areas(model, task.seed, task.cleanse)).max())
    return Audited(
        member=member,
        p_value=found.null.p_value,
        statistic=found.null.statistic,
        finding=victim.findings[finding],
        direction=DIRECTIONS[direction],
        distance=_distance(box, member.planted.box if member.planted else None),
        forwards=spent.forwards,
        backwards=spent.backwards,
        passes=spent.equivalents,
        seconds=seconds,
        tests=tuple(_alone(made, member, victim.findings) for made in found.made),
        cleanse=index,
        cleanse_passes=victim.passes.since(before).equivalents,
    )


def _alone(made: Made, member: Member, findings: Sequence[str]) -> Alone:
    direction, finding = _most(made.null)
    return Alone(
        test=made.evidence.test,
        statistic=made.null.statistic,
        p_value=made.null.p_value,
        is_right=_is_planted(member, findings[finding], DIRECTIONS[direction]),
        passes=made.passes.equivalents,
        seconds=made.seconds,
    )


def _most(null: Null) -> tuple[int, int]:
    """Direction and finding that stand out most."""
    suspicion = null.standardised.max(axis=2)
    direction, finding = np.unravel_index(suspicion.argmax(), suspicion.shape)
    return int(direction), int(finding)


def _is_planted(member: Member, finding: str, direction: str) -> bool:
    planted = member.planted
    return planted is not None and (planted.finding, planted.direction) == (finding, direction)


def _areas(model: Subject, seed: int, settings: Cleanse) -> Float64Array:
    items = np.ndindex(2, model.n_findings)
    return np.array([cleanse(model, [item], seed, settings).area[0] for item in items])


def _distance(found: Box | None, planted: Box | None) -> float | None:
    if found is None or planted is None:
        return None
    (x, y), (u, v) = ((box.x + box.width / 2, box.y + box.height / 2) for box in (found, planted))
    return float(np.hypot(x - u, y - v))


def _rows(found: Sequence[Audited], seed: int) -> tuple[Row, ...]:
    pool = _Pool.of(found)
    clean, works, patches = pool.clean, pool.works, pool.patches
    placed = [f for f in patches if f.distance is not None and f.p_value <= ALPHA]
    with_cleanse = [f for f in found if f.cleanse is not None]
    rows = [
        _auroc("ROC-AUC, patches", pool.statistics(clean), pool.statistics(patches), seed, 0.98),
        _auroc("ROC-AUC, all triggers", pool.statistics(clean), pool.statistics(works), seed, 0.85),
        _share("right finding and direction", [f.is_right for f in works], seed, at_least(0.9)),
        _share("right finding and direction, patches", [f.is_right for f in patches], seed),
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
        pool = _Pool.of(with_cleanse)
        ours = float(np.mean([f.passes for f in with_cleanse]))
        theirs = float(np.mean([f.cleanse_passes for f in with_cleanse]))
        indices = [
            [f.cleanse or 0.0 for f in part] for part in (pool.clean, pool.patches, pool.works)
        ]
        rows += [
            _auroc("ROC-AUC, patches, Neural Cleanse", indices[0], indices[1], seed),
            _auroc("ROC-AUC, all, Neural Cleanse", indices[0], indices[2], seed),
            row("forward equivalents a model", ours, "passes"),
            row("fewer than Neural Cleanse by", theirs / ours, "×", bar=at_least(5)),
        ]
    rows.append(row("seconds a model", float(np.median([f.seconds for f in found])), "s"))
    return tuple(rows)


@dataclass(frozen=True)
class _Pool:
    """clean models; those whose backdoor works; of these, the ones with a patch."""

    clean: tuple[Audited, ...]
    works: tuple[Audited, ...]
    patches: tuple[Audited, ...]

    @classmethod
    def of(cls, found: Sequence[Audited]) -> _Pool:
        works = tuple(f for f in found if _works(f))
        patches = tuple(f for f in works if f.member.planted and f.member.planted.kind == "patch")
        return cls(tuple(f for f in found if f.member.planted is None), works, patches)

    @property
    def whole_film(self) -> tuple[Audited, ...]:
        return tuple(f for f in self.works if f not in self.patches)

    def statistics(self, models: Sequence[Audited], test: int | None = None) -> list[float]:
        """Of the whole audit, or of one of its tests."""
        return [f.statistic if test is None else f.tests[test].statistic for f in models]


def _works(f: Audited) -> bool:
    planted = f.member.planted
    return planted is not None and (planted.success.value or 0.0) >= TAKES


def _auroc(
    name: str,
    clean: Sequence[float],
    backdoored: Sequence[float],
    seed: int,
    bar: float | None = None,
) -> Row:
    if not clean or not backdoored:
        return row(name, None, reason="no such model in the pool")
    score, _ = measure_detection(
        NAME,
        "backdoored",
        suspicion_clean=clean,
        suspicion_triggered=backdoored,
        patients_clean=[f"clean {i}" for i in range(len(clean))],
        patients_triggered=[f"backdoored {i}" for i in range(len(backdoored))],
        successful=np.ones(len(backdoored), np.bool_),
        regions=None,
        triggers=None,
        generator=np.random.default_rng([seed, 0xA0]),
    )
    value: Estimate = score.auroc
    wanted = None if bar is None else at_least(bar)
    return row(name, value.value, low=value.low, high=value.high, bar=wanted, reason=value.reason)


def _by_test(found: Sequence[Audited], seed: int) -> Grid:
    """What every test would be worth if it were the only one."""
    pool = _Pool.of(found)
    names = {t.test: i for f in found[:1] for i, t in enumerate(f.tests)}
    rows = []
    for name, i in names.items():
        having = _Pool.of([f for f in found if len(f.tests) == len(names)])
        clean = having.statistics(having.clean, i)
        of_kinds = (having.patches, having.whole_film, having.works)
        areas = (_auroc(name, clean, having.statistics(kind, i), seed) for kind in of_kinds)
        right = [f.tests[i].is_right for f in pool.works]
        alarms = [f.tests[i].p_value <= 0.05 for f in pool.clean]
        rows.append(
            (
                name,
                *(_interval(area) for area in areas),
                shown_rate(_rate(right, seed)),
                shown_rate(_rate(alarms, seed)),
                f"{np.mean([f.tests[i].passes for f in found]):,.0f}",
                f"{np.median([f.tests[i].seconds for f in found]):.0f}",
            )
        )
    return Grid(
        title="Every test alone",
        header=(
            "test",
            "ROC-AUC, patches",
            "whole film",
            "all",
            "right finding",
            "false alarms at α = 0.05",
            "passes",
            "s",
        ),
        rows=tuple(rows),
    )


def _by_network(found: Sequence[Audited], seed: int) -> Grid:
    """Whether the audit depends on the size of the network or of its input."""
    rows = []
    for network in dict.fromkeys(f.network for f in found):
        pool = _Pool.of([f for f in found if f.network == network])
        area = _auroc(network, pool.statistics(pool.clean), pool.statistics(pool.works), seed)
        rows.append(
            (
                network,
                f"{len(pool.clean)} + {len(pool.works)}",
                _interval(area),
                shown_rate(_rate([f.is_right for f in pool.works], seed)),
                shown_rate(_rate([f.p_value <= ALPHA for f in pool.works], seed)),
                shown_rate(_rate([f.p_value <= 0.05 for f in pool.clean], seed)),
                f"{np.median(pool.statistics(pool.clean)):.1f}" if pool.clean else "–",
            )
        )
    return Grid(
        title="By network",
        header=(
            "network",
            "clean + backdoored",
            "ROC-AUC, all",
            "right finding",
            f"evidence at α = {ALPHA:g}",
            "false alarms at α = 0.05",
            "median statistic of clean ones",
        ),
        rows=tuple(rows),
    )


def _interval(area: Row) -> str:
    if area.value is None:
        return "–"
    if area.low is None or area.high is None:
        return f"{area.value:.3f}"
    return f"{area.value:.3f} ({area.low:.3f}–{area.high:.3f})"


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
        "network": f.network,
        "backdoored": f.member.planted is not None,
        "kind": f.member.planted.kind if f.member.planted else None,
        "success": f.member.planted.success.value if f.member.planted else None,
        "p_value": f.p_value,
        "statistic": f.statistic,
        "finding": f.finding,
        "direction": f.direction,
        "right": f.is_right,
        "distance": f.distance,
        "forwards": f.forwards,
        "backwards": f.backwards,
        "seconds": f.seconds,
        "cleanse": f.cleanse,
        "cleanse_passes": f.cleanse_passes,
        **{f"statistic: {alone.test}": alone.statistic for alone in f.tests},
        **{f"p: {alone.test}": alone.p_value for alone in f.tests},
    }
