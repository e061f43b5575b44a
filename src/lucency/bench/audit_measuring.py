"""Every test of a model, and Neural Cleanse, on one model of a zoo; nothing is compared yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from lucency.detect.models import TESTS
from lucency.detect.models.audit import timed
from lucency.detect.models.evidence import Evidence
from lucency.detect.models.neural_cleanse import Cleanse, anomaly_index, cleanse
from lucency.detect.models.subject import Subject, subject
from lucency.errors import ModelError
from lucency.manifest import code_digest
from lucency.records import Box, Record
from lucency.runs import digest, write_json
from lucency.victims.card import load_victim
from lucency.victims.engine import with_engine
from lucency.victims.victim import Passes
from lucency.zoo.build import FILMS
from lucency.zoo.record import Member

KEPT = "audits"
"""Folder of the zoo that keeps the outcome of every test."""
MEASURING = ("detect/models/", "explain/", "victims/")
"""The code that the outcome of a test depends on, and a little more."""
N_FILMS = 64
COMPARED = Cleanse(steps=100, films=16)
"""Neural Cleanse with a tenth of its published steps and half of its films, or a pool takes days;
with all of them it needs the more passes."""


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
class Task:
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


def carry_out(task: Task) -> None:
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


def _measure(task: Task, model: Subject) -> Measured:
    tests = []
    for test in TESTS.values():
        try:
            evidence, spent, seconds = timed(test, model, task.seed)
        except ModelError:
            continue
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
    return Measured(member=task.member, findings=model.victim.findings, tests=tuple(tests))


def _boxes(evidence: Evidence) -> list[list[Box | None]]:
    directions, findings, budgets = evidence.scores.shape
    if evidence.recovered is None:
        return [[None] * budgets for _ in range(directions * findings)]
    return [
        [evidence.recovered(direction, finding, budget).box for budget in range(budgets)]
        for direction, finding in np.ndindex(directions, findings)
    ]
