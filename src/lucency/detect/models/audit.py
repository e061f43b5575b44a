"""An audit: every test on one model, and one p-value for all of them.

A test scores every finding in both directions; `null` says what the largest of all these scores is
worth. So that several tests do not mean several chances to cry wolf, they share one maximum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lucency.detect.models.evidence import Evidence, ModelTest, Recovered
from lucency.detect.models.null import Null, against_findings, against_models
from lucency.detect.models.subject import Subject
from lucency.errors import ModelError
from lucency.progress import Advance, Progress, silent
from lucency.records import Float64Array
from lucency.victims.victim import Passes

LEAST_MODELS = 3
"""Clean reference models of which each can be compared with others."""
NEEDS_MODELS = (
    "Findings differ in it by nature: it needs clean reference models, at least "
    f"{LEAST_MODELS}, to compare with."
)


Scores = Callable[[str, Progress], Float64Array]
"""What a test, by its name, says of a clean reference model: scores (2, K, L). Raises ModelError
for one that cannot be made on it."""


class Timed(NamedTuple):
    """What a test says, and what it cost."""

    evidence: Evidence
    passes: Passes
    seconds: float


def timed(test: ModelTest, subject: Subject, seed: int, progress: Progress = silent) -> Timed:
    """Make a test. Raises ModelError for one that cannot be made."""
    started, before = time.perf_counter(), replace(subject.victim.passes)
    evidence = test.make(subject, seed, progress)
    seconds = time.perf_counter() - started
    return Timed(evidence, subject.victim.passes.since(before), seconds)


def scores_of(subject: Subject, tests: Mapping[str, ModelTest], seed: int) -> Scores:
    """A clean model that others are compared with."""

    def scores(name: str, progress: Progress) -> Float64Array:
        return tests[name].make(subject, seed, progress).scores

    return scores


@dataclass(frozen=True)
class Made:
    """A test that was made, what it cost, and what it says alone."""

    evidence: Evidence
    passes: Passes
    seconds: float
    null: Null


@dataclass(frozen=True)
class Audit:
    """made: the tests in order; skipped: a test's name -> why it could not be made. null: of all
    budgets of all tests together, in the order of `made`."""

    made: tuple[Made, ...]
    skipped: dict[str, str]
    null: Null

    def best(self, direction: int, finding: int) -> tuple[Evidence, int]:
        """The test, and which of its budgets, that a finding's largest standardised score is
        from."""
        return self._budgets()[int(self.null.standardised[direction, finding].argmax())]

    def trigger(self, direction: int, finding: int) -> tuple[Evidence, Recovered] | None:
        """The trigger whose standardised score is largest, and the test that found it; None if no
        test that was made finds triggers."""
        order = np.argsort(-self.null.standardised[direction, finding], kind="stable")
        budgets = self._budgets()
        for evidence, budget in (budgets[int(i)] for i in order):
            if evidence.recovered is not None:
                return evidence, evidence.recovered(direction, finding, budget)
        return None

    def _budgets(self) -> list[tuple[Evidence, int]]:
        """In the order of the null's columns."""
        return [(m.evidence, i) for m in self.made for i in range(m.evidence.scores.shape[2])]


def audit(
    subject: Subject,
    tests: Mapping[str, ModelTest],
    *,
    references: Sequence[Scores] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Audit:
    """Make every test that can be made. references: what the tests say of clean models of the same
    findings, on the same films, at the same seed; fewer than `LEAST_MODELS` are left aside, and so
    is a test that cannot be made on one of them. Raises ModelError if no test can be made."""
    made: list[Timed] = []
    compared: list[Float64Array] = []
    skipped: dict[str, str] = {}
    others = references if len(references) >= LEAST_MODELS else ()
    for name, test in tests.items():
        if not others and not test.among_findings:
            skipped[name] = NEEDS_MODELS
            continue
        try:
            found = timed(test, subject, seed, progress)
            clean = _compared(name, found.evidence.scores.shape, others, progress)
        except ModelError as error:
            skipped[name] = str(error)
            continue
        made.append(found)
        compared.append(clean)
    if not made:
        raise ModelError(f"No test can be made on this model: {'; '.join(skipped.values())}")

    def judge(scores: Float64Array, clean: Float64Array) -> Null:
        return against_models(scores, clean) if others else against_findings(scores, seed)

    scores = [each.evidence.scores for each in made]
    alone = [judge(own, clean) for own, clean in zip(scores, compared, strict=True)]
    every = np.concatenate(scores, axis=2)
    null = judge(every, np.concatenate(compared, axis=-1))
    return Audit(tuple(Made(*m, n) for m, n in zip(made, alone, strict=True)), skipped, null)


def _compared(
    name: str, shape: tuple[int, ...], others: Sequence[Scores], progress: Progress
) -> Float64Array:
    """A test on every reference model: (M, 2, K, L)."""
    found = []
    for i, scores in enumerate(others):
        number = f"reference model {i + 1} of {len(others)}"
        try:
            of_other = scores(name, _named(progress, number))
        except ModelError as error:
            raise ModelError(f"On {number}: {error}") from error
        if of_other.shape != shape:
            raise ModelError(
                f"On {number} it has other scores, {of_other.shape} and not {shape}; compare with "
                "models of the same input size."
            )
        found.append(of_other)
    return np.array(found)


def _named(progress: Progress, whose: str) -> Progress:
    """The same, and whose turn it is."""

    def shown(description: str, total: int) -> AbstractContextManager[Advance]:
        return progress(f"{description}, {whose}", total)

    return shown
