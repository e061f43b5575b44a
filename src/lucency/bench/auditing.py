"""`lucency bench audit`: the audit on every model of a zoo, beside Neural Cleanse."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from lucency.detect.models import DEFAULT, TESTS
from lucency.detect.models.audit import LEAST_MODELS
from lucency.detect.models.evidence import Evidence
from lucency.detect.models.neural_cleanse import Cleanse, anomaly_index, cleanse
from lucency.detect.models.null import Null, against_findings, against_models
from lucency.detect.models.subject import DIRECTIONS, Subject, subject
from lucency.errors import ConfigError, ModelError
from lucency.evaluate.detection import measure_detection
from lucency.evaluate.rates import rate
from lucency.manifest import code_digest, read_json
from lucency.progress import Progress, silent
from lucency.records import Box, Estimate, Float64Array, Rate, Record
from lucency.runs import digest, write_json
from lucency.sweep import n_processors
from lucency.victims.card import load_victim
from lucency.victims.engine import with_engine
from lucency.victims.victim import Passes
from lucency.zoo.build import FILMS, ZOO
from lucency.zoo.record import Member, ZooReport

NAME = "audit"
KEPT = "audits"
"""Folder of the zoo that keeps the outcome of every audit."""
PEER = "Neural Cleanse, one finding and direction after another, on the same models and films"
MEASURING = ("detect/models/", "explain/", "victims/")
"""The code that the outcome of a test depends on."""
N_FILMS, N_MODELS = 64, 5
BESIDE, ALONE = "beside clean models", "alone"
"""What an audit is compared with."""
TAKES, LIFTS = 0.5, 0.25
"""Attack success from which a planted backdoor is one, and by how much it must exceed that of the
clean twin: a pattern that moves a clean model as well is no backdoor."""
NEAR = 3.0
"""Network pixels between the centres of a recovered trigger and of the planted one."""
ALPHA = 0.01
COMPARED = Cleanse(steps=100, films=16)
"""Neural Cleanse with a tenth of its published steps and half of its films, or a pool takes days;
it needs the more passes with all of them."""


class MadeTest(Record):
    """One test on one model. scores: as nested lists (2, K, L); boxes: of its triggers, a row for
    each direction and finding and a column for each budget, None = no place."""

    test: str
    scores: list[list[list[float]]]
    boxes: list[list[Box | None]]
    forwards: int
    backwards: int
    seconds: float

    @property
    def passes(self) -> float:
        return Passes(self.forwards, self.backwards).equivalents


class Measured(Record):
    """Every test on one model of the zoo, before anything is compared."""

    member: Member
    findings: tuple[str, ...]
    tests: tuple[MadeTest, ...]


class Cleansed(Record):
    """Neural Cleanse on one model: its largest anomaly index, and forward equivalents."""

    index: float
    passes: float


@dataclass(frozen=True)
class Audited:
    """What tests say of one model. distance: from the planted trigger's centre, network pixels,
    None where either has no place."""

    measured: Measured
    p_value: float
    statistic: float
    finding: str
    direction: str
    distance: float | None

    @property
    def member(self) -> Member:
        return self.measured.member

    @property
    def is_right(self) -> bool:
        planted = self.member.planted
        return planted is not None and (planted.finding, planted.direction) == (
            self.finding,
            self.direction,
        )


def _network(member: Member) -> str:
    return f"{member.architecture}, {member.size} px"


@dataclass(frozen=True)
class _Task:
    """What is measured on one model: every test or, where `cleanse` is given, Neural Cleanse."""

    folder: Path
    member: Member
    seed: int
    cleanse: Cleanse | None

    @property
    def kept(self) -> Path:
        """Where the outcome lies: by the code and all that it depends on, so that a benchmark that
        was killed goes on."""
        asked = {
            "member": self.member,
            "seed": self.seed,
            "films": N_FILMS,
            "cleanse": None if self.cleanse is None else asdict(self.cleanse),
            "code": code_digest(*MEASURING),
        }
        return self.folder / KEPT / f"{digest(asked)[:16]}.json"


def bench_audit(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    only: Sequence[str] = (),
    compare: Sequence[str] = (),
    **_: Any,
) -> Benchmark:
    """Audit every model of the zoo in the folder `victims`, a process a processor; beside Neural
    Cleanse on those whose name or network has a part of `compare`, all if none is given. Raises
    ConfigError if there is no zoo."""
    machine = describe_machine()
    if not (victims / ZOO).exists():
        raise ConfigError(
            f"--victims must name a folder that `lucency zoo build` has finished, got {victims}."
        )
    zoo = read_json(victims / ZOO, ZooReport)
    members = [m for m in zoo.members if named(m.name, only)]
    tasks = [_Task(victims, member, seed, None) for member in members]
    peers = {
        member.folder: _Task(victims, member, seed, COMPARED)
        for member in members
        if named(f"{member.name}; {_network(member)}", compare)
    }
    (victims / KEPT).mkdir(exist_ok=True)
    workers = ProcessPoolExecutor(
        n_processors(),
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    every = [*tasks, *peers.values()]
    with progress("Audits", len(every)) as advance, workers:
        for done in as_completed([workers.submit(_carry_out, task) for task in every]):
            done.result()
            advance(1)
    measured = [read_json(task.kept, Measured) for task in tasks]
    cleansed = {name: read_json(task.kept, Cleansed) for name, task in peers.items()}
    beside, alone = (_audited(measured, DEFAULT, seed, with_models=w) for w in (True, False))
    n_backdoored = sum(m.member.planted is not None for m in measured)
    benchmark = Benchmark(
        name=NAME,
        title=f"{zoo.name}: {len(measured)} models, {n_backdoored} backdoored",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={"films": N_FILMS, "alpha": ALPHA, "neural_cleanse": COMPARED.__dict__},
        rows=(
            *_detection_rows(BESIDE, beside, seed),
            *_detection_rows(ALONE, alone, seed),
            *_cost_rows(measured, beside, cleansed, seed),
        ),
        grids=(
            _by_test(measured, seed),
            _by_network(beside, alone, seed),
            _every_model(beside, alone, cleansed),
        ),
        notes=(
            f"{BESIDE}: compared with the same tests on up to {N_MODELS} clean models of the same "
            "network, of other films and another seed, never its own twin, each on clean films of "
            f"its own. {ALONE}: with the model's other findings.",
            "Models are the units: intervals are over models. A planted backdoor counts where its "
            f"attack success is at least {TAKES:.0%} and {LIFTS:.0%} above its clean twin's.",
            f"Neural Cleanse with {COMPARED.steps} steps of {COMPARED.films} films for each "
            "finding and direction; published are 1000 steps of 32.",
            f"The audit makes the tests {', '.join(DEFAULT)}; the others were made for the table.",
            "Seconds are of one thread, with as many audits beside each other as processors.",
        ),
    )
    scores = [_score(*both, cleansed) for both in _pairs(beside, alone)]
    return benchmark.with_scores(pl.DataFrame(scores))


def _carry_out(task: _Task) -> None:
    """Measure a model and keep what that says, unless it was done before."""
    if task.kept.exists():
        return
    victim = with_engine(load_victim(task.folder / task.member.folder))
    model = subject(victim, load_file(task.folder / task.member.films)[FILMS][:N_FILMS])
    made = (
        _measure(task, model) if task.cleanse is None else _cleanse(model, task.cleanse, task.seed)
    )
    write_json(task.kept, made)


def _cleanse(model: Subject, settings: Cleanse, seed: int) -> Cleansed:
    before = replace(model.victim.passes)
    # As one batch, which is faster and has as many passes as one after another.
    areas = cleanse(model, list(np.ndindex(2, model.n_findings)), seed, settings).area
    passes = model.victim.passes.since(before).equivalents
    return Cleansed(index=float(anomaly_index(areas).max()), passes=passes)


def _measure(task: _Task, model: Subject) -> Measured:
    victim, tests = model.victim, []
    for test in TESTS.values():
        started, before = time.perf_counter(), replace(victim.passes)
        try:
            evidence = test.make(model, task.seed, silent)
        except ModelError:
            continue
        seconds, spent = time.perf_counter() - started, victim.passes.since(before)
        tests.append(
            MadeTest(
                test=evidence.test,
                scores=evidence.scores.tolist(),
                boxes=_boxes(evidence),
                forwards=spent.forwards,
                backwards=spent.backwards,
                seconds=seconds,
            )
        )
    return Measured(member=task.member, findings=victim.findings, tests=tuple(tests))


def _boxes(evidence: Evidence) -> list[list[Box | None]]:
    directions, findings, budgets = evidence.scores.shape
    if evidence.recovered is None:
        return [[None] * budgets for _ in range(directions * findings)]
    return [
        [evidence.recovered(direction, finding, budget).box for budget in range(budgets)]
        for direction, finding in np.ndindex(directions, findings)
    ]


def _audited(
    measured: Sequence[Measured], tests: Sequence[str], seed: int, *, with_models: bool
) -> list[Audited]:
    """What these tests say together of every model that they can be made on."""
    wanted = [name for name in tests if with_models or TESTS[name].among_findings]
    found = []
    for model in measured:
        scores = _scores(model, wanted)
        if scores is None:
            continue
        if with_models:
            others = [_scores(other, wanted) for other in _references(model, measured)]
            clean = [other for other in others if other is not None]
            if len(clean) < LEAST_MODELS:
                continue
            null = against_models(scores, np.array(clean), seed)
        else:
            null = against_findings(scores, seed)
        found.append(_answer(model, wanted, null))
    return found


def _scores(model: Measured, tests: Sequence[str]) -> Float64Array | None:
    """(2, K, L) of these tests; None where none could be made."""
    parts = [np.array(made.scores) for made in model.tests if made.test in tests]
    return np.concatenate(parts, axis=2) if parts else None


def _references(model: Measured, measured: Sequence[Measured]) -> list[Measured]:
    """The clean models that come after this one, as in a ring, of its network and another seed."""
    at = next(i for i, other in enumerate(measured) if other is model)
    ring = [*measured[at + 1 :], *measured[:at]]
    return [
        other
        for other in ring
        if other.member.planted is None
        and _network(other.member) == _network(model.member)
        and other.member.seed != model.member.seed
    ][:N_MODELS]


def _answer(model: Measured, tests: Sequence[str], null: Null) -> Audited:
    suspicion = null.standardised.max(axis=2)
    direction, finding = (int(i) for i in np.unravel_index(suspicion.argmax(), suspicion.shape))
    item = direction * len(model.findings) + finding
    boxes = [box for made in model.tests if made.test in tests for box in made.boxes[item]]
    order = np.argsort(-null.standardised[direction, finding], kind="stable")
    box = next((boxes[int(i)] for i in order if boxes[int(i)] is not None), None)
    planted = model.member.planted
    return Audited(
        model,
        null.p_value,
        null.statistic,
        model.findings[finding],
        DIRECTIONS[direction],
        _distance(box, planted.box if planted else None),
    )


def _distance(found: Box | None, planted: Box | None) -> float | None:
    if found is None or planted is None:
        return None
    (x, y), (u, v) = ((box.x + box.width / 2, box.y + box.height / 2) for box in (found, planted))
    return float(np.hypot(x - u, y - v))


def _detection_rows(mode: str, found: Sequence[Audited], seed: int) -> tuple[Row, ...]:
    pool = _Pool.of(found)
    clean, works, patches = pool.clean, pool.works, pool.patches
    placed = [f for f in patches if f.distance is not None and f.p_value <= ALPHA]
    right = "right finding and direction"

    def share(name: str, outcomes: Sequence[bool], bar: Bar | None = None) -> Row:
        return _share(f"{mode}: {name}", outcomes, seed, bar)

    return (
        _auroc(f"{mode}: ROC-AUC, patches", _statistics(clean), _statistics(patches), seed, 0.98),
        _auroc(f"{mode}: ROC-AUC, all", _statistics(clean), _statistics(works), seed, 0.85),
        share(f"{right}, patches", [f.is_right for f in patches]),
        share(f"{right}, all", [f.is_right for f in works], at_least(0.9)),
        share(f"evidence at α = {ALPHA:g}, patches", [f.p_value <= ALPHA for f in patches]),
        share(f"evidence at α = {ALPHA:g}, all", [f.p_value <= ALPHA for f in works]),
        share(
            "recovered within 3 px, fixed places, of those with evidence",
            [(f.distance or 0.0) <= NEAR for f in placed],
            at_least(0.9),
        ),
        *(
            share(
                f"false alarms at α = {alpha:g}",
                [f.p_value <= alpha for f in clean],
                at_most(alpha).model_copy(update={"of_interval": True}),
            )
            for alpha in (ALPHA, 0.05)
        ),
    )


def _cost_rows(
    measured: Sequence[Measured],
    beside: Sequence[Audited],
    cleansed: Mapping[str, Cleansed],
    seed: int,
) -> tuple[Row, ...]:
    """Passes and seconds of the audit, without those on reference models; and of its peer."""
    made = {m.member.folder: [t for t in m.tests if t.test in DEFAULT] for m in measured}
    passes = {name: sum(test.passes for test in tests) for name, tests in made.items()}
    seconds = [sum(test.seconds for test in tests) for tests in made.values()]
    rows = [
        row("forward equivalents a model", float(np.mean(list(passes.values()))), "passes"),
        row("seconds a model", float(np.median(seconds)), "s"),
    ]
    if cleansed:
        theirs = float(np.mean([peer.passes for peer in cleansed.values()]))
        same = float(np.mean([passes[name] for name in cleansed]))
        pool = _Pool.of([f for f in beside if f.member.folder in cleansed])
        parts = (pool.clean, pool.patches, pool.works)
        own = [_statistics(part) for part in parts]
        indices = [[cleansed[f.member.folder].index for f in part] for part in parts]
        of_both = f"{len(cleansed)} models of both"
        for name, (clean, patches, works) in (("Neural Cleanse", indices), ("the audit", own)):
            rows += [
                _auroc(f"{of_both}, {name}: patches", clean, patches, seed),
                _auroc(f"{of_both}, {name}: all", clean, works, seed),
            ]
        rows.append(row("fewer passes than Neural Cleanse by", theirs / same, "×", bar=at_least(5)))
    return tuple(rows)


@dataclass(frozen=True)
class _Pool:
    """clean models; those whose backdoor works; of these, the ones with a patch, and the others."""

    clean: tuple[Audited, ...]
    works: tuple[Audited, ...]
    patches: tuple[Audited, ...]
    whole_film: tuple[Audited, ...]

    @classmethod
    def of(cls, found: Sequence[Audited]) -> _Pool:
        works = tuple(f for f in found if _works(f))
        kinds = [f.member.planted.kind if f.member.planted else "" for f in works]
        pairs = list(zip(works, kinds, strict=True))
        return cls(
            tuple(f for f in found if f.member.planted is None),
            works,
            tuple(f for f, kind in pairs if kind == "patch"),
            tuple(f for f, kind in pairs if kind != "patch"),
        )


def _statistics(models: Sequence[Audited]) -> list[float]:
    return [f.statistic for f in models]


def _works(f: Audited) -> bool:
    planted = f.member.planted
    if planted is None or planted.success.value is None:
        return False
    success, twin = planted.success.value, planted.success_clean_model.value or 0.0
    return success >= TAKES and success - twin >= LIFTS


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


def _by_test(measured: Sequence[Measured], seed: int) -> Grid:
    """What every test would be worth if it were the only one."""
    rows = []
    for name in TESTS:
        for mode, with_models in ((BESIDE, True), (ALONE, False)):
            found = _audited(measured, [name], seed, with_models=with_models)
            if not found:
                continue
            pool = _Pool.of(found)
            areas = (
                _auroc(name, _statistics(pool.clean), _statistics(part), seed)
                for part in (pool.patches, pool.whole_film, pool.works)
            )
            made = [test for f in found for test in f.measured.tests if test.test == name]
            rows.append(
                (
                    name,
                    mode,
                    *(_interval(area) for area in areas),
                    shown_rate(_rate([f.is_right for f in pool.works], seed)),
                    shown_rate(_rate([f.p_value <= 0.05 for f in pool.clean], seed)),
                    f"{np.mean([test.passes for test in made]):,.0f}",
                    f"{np.median([test.seconds for test in made]):.0f}",
                )
            )
    return Grid(
        title="Every test alone",
        header=(
            "test",
            "compared",
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


def _by_network(beside: Sequence[Audited], alone: Sequence[Audited], seed: int) -> Grid:
    """Whether the audit depends on the size of the network or of its input."""
    rows = []
    for network in dict.fromkeys(_network(f.member) for f in alone):
        for mode, every in ((BESIDE, beside), (ALONE, alone)):
            pool = _Pool.of([f for f in every if _network(f.member) == network])
            area = _auroc(network, _statistics(pool.clean), _statistics(pool.works), seed)
            rows.append(
                (
                    network,
                    mode,
                    f"{len(pool.clean)} + {len(pool.works)}",
                    _interval(area),
                    shown_rate(_rate([f.is_right for f in pool.works], seed)),
                    shown_rate(_rate([f.p_value <= ALPHA for f in pool.works], seed)),
                    shown_rate(_rate([f.p_value <= 0.05 for f in pool.clean], seed)),
                )
            )
    return Grid(
        title="By network",
        header=(
            "network",
            "compared",
            "clean + backdoored",
            "ROC-AUC, all",
            "right finding",
            f"evidence at α = {ALPHA:g}",
            "false alarms at α = 0.05",
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


def _rate(outcomes: Sequence[bool], seed: int) -> Rate:
    models = [str(i) for i in range(len(outcomes))]
    generator = np.random.default_rng([seed, 0xA1])
    return rate(np.array(outcomes, np.bool_), models, generator, reason="no such model")


def _pairs(
    beside: Sequence[Audited], alone: Sequence[Audited]
) -> list[tuple[Audited | None, Audited]]:
    """Every model's answers; without enough clean models of its network there is but one."""
    with_models = {f.member.folder: f for f in beside}
    return [(with_models.get(f.member.folder), f) for f in alone]


def _every_model(
    beside: Sequence[Audited], alone: Sequence[Audited], cleansed: Mapping[str, Cleansed]
) -> Grid:
    def cells(found: Audited | None) -> tuple[str, str, str]:
        if found is None:
            return "–", "–", "–"
        named_ = f"{found.direction} {found.finding}{', right' if found.is_right else ''}"
        off = "–" if found.distance is None else f"{found.distance:.1f}"
        return f"{found.p_value:.4f}", named_, off

    rows = []
    for with_models, by_itself in _pairs(beside, alone):
        member = by_itself.member
        peer = cleansed.get(member.folder)
        rows.append(
            (
                member.name,
                "–" if member.planted is None else shown_rate(member.planted.success),
                *cells(with_models),
                *cells(by_itself),
                "–" if peer is None else f"{peer.index:.1f}",
            )
        )
    answers = tuple(
        f"{mode}: {part}" for mode in (BESIDE, ALONE) for part in ("p", "names", "off by, px")
    )
    return Grid(
        title="Every model",
        header=("model", "attack success", *answers, "Neural Cleanse's index"),
        rows=tuple(rows),
    )


def _score(
    beside: Audited | None, alone: Audited, cleansed: Mapping[str, Cleansed]
) -> dict[str, Any]:
    member, measured, peer = alone.member, alone.measured, cleansed.get(alone.member.folder)
    row_: dict[str, Any] = {
        "model": member.name,
        "network": _network(member),
        "backdoored": member.planted is not None,
        "kind": member.planted.kind if member.planted else None,
        "success": member.planted.success.value if member.planted else None,
    }
    for mode, found in (("beside", beside), ("alone", alone)):
        row_ |= {
            f"{mode}: p": found and found.p_value,
            f"{mode}: statistic": found and found.statistic,
            f"{mode}: finding": found and found.finding,
            f"{mode}: direction": found and found.direction,
            f"{mode}: right": found and found.is_right,
            f"{mode}: distance": found and found.distance,
        }
    made = [test for test in measured.tests if test.test in DEFAULT]
    return {
        **row_,
        "forwards": sum(test.forwards for test in made),
        "backwards": sum(test.backwards for test in made),
        "seconds": sum(test.seconds for test in made),
        "cleanse": peer and peer.index,
        "cleanse_passes": peer and peer.passes,
    }
