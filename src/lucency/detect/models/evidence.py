"""What a test of a model returns, whatever it looks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lucency.detect.models.subject import Subject
from lucency.progress import Progress
from lucency.records import Box, Float64Array


@dataclass(frozen=True)
class Recovered:
    """A trigger that a test found. words: what it is. put: films (n, 1, size, size) -> the same
    with it. box: the network pixels that it may change; None = the whole film."""

    words: str
    put: Callable[[Tensor], Tensor]
    box: Box | None


@dataclass(frozen=True)
class Evidence:
    """What one test says of a model.

    needs: what it had to have, in words. budgets: the L budgets that triggers were searched within.
    scores (2, K, L): larger = more suspicious; directions, set and clear, then findings; on a clean
    model those of a budget are about normal. recovered: (direction, finding, budget) -> the best
    trigger; None for a test that says that something is wrong, but not what.
    """

    test: str
    needs: str
    budgets: tuple[str, ...]
    scores: Float64Array
    recovered: Callable[[int, int, int], Recovered] | None


@dataclass(frozen=True)
class ModelTest:
    """A test of a model. make: raises ModelError for one that it cannot be made on. among_findings:
    whether a clean model's findings are alike in it; if not, only clean models say what is
    usual."""

    make: Callable[[Subject, int, Progress], Evidence]
    among_findings: bool = True


def score(moved: Float64Array) -> Float64Array:
    """How far triggers move findings, in standard deviations of clean logits -> scores: logarithms,
    but for movements well below one standard deviation, which tell findings apart by nothing."""
    return np.asarray(np.log1p(np.maximum(moved, 0.0)))
