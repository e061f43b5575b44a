"""What the scores of a model's findings are compared with, and the p-value that follows.

A test gives every direction and finding a score for each of its budgets, such as how far the best
stamp of 3 px moves the finding. On a clean model that is never nothing, and depends on network and
films. So each score is compared with scores of the same budget that no backdoor is behind: with the
other findings of the same model, or, where clean reference models are given, with what the same
search reaches on them. The largest standardised score over all findings, directions, budgets and
tests is the model's statistic (maxT), so that a hundred comparisons are one. Its p-value is how
often the largest of as many independent normal variables, standardised the same way, is as large;
scores that go together make it larger than it need be, which is the safe side.

Other findings are a weak null: of 28 values the largest is asked for. And an attack that moves
several findings hides among them, which is why the largest tenth is left out of mean and spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lucency.records import Float64Array

DRAWS = 9999
PRIOR = 4
"""Degrees of freedom that the pooled variance over reference models has in a finding's."""
TRIMMED = 0.1
"""Share of the findings and directions, those of the largest scores, that say nothing of what is
usual."""


@dataclass(frozen=True)
class Null:
    """standardised (2, K, L): larger = more suspicious. statistic: the largest. p_value of the
    model, in [1 / (DRAWS + 1), 1]; p_values (2, K): of each direction and finding, corrected for
    all the others (step-down maxT, Westfall and Young 1993). largest (DRAWS,): the statistic under
    the null."""

    standardised: Float64Array
    statistic: float
    p_value: float
    p_values: Float64Array
    largest: Float64Array

    def critical_at(self, alpha: float) -> float:
        """The statistic from which p ≤ alpha."""
        return float(np.quantile(self.largest, 1 - alpha))


def against_findings(scores: Float64Array, seed: int) -> Null:
    """scores (2, K, L), compared with the model's other findings and directions."""
    items = scores.reshape(-1, scores.shape[2])
    centre, spread = _trimmed(items)
    largest = _largest_of_findings(items.shape, seed, DRAWS)
    return _null(scores, np.broadcast_to(centre, scores.shape), spread, largest)


def against_models(scores: Float64Array, reference: Float64Array, seed: int) -> Null:
    """scores (2, K, L), compared with those (M, 2, K, L) of M ≥ 2 clean models, each finding and
    direction with itself. Its variance over models is shrunk towards that of all, as if `PRIOR`
    more models had said it: a few models say little of one finding, and findings differ."""
    centre, spread = _pooled(reference)
    largest = _largest_of_models(len(reference), scores.shape, seed, DRAWS)
    return _null(scores, centre, spread, largest)


@lru_cache(maxsize=16)
def _largest_of_findings(shape: tuple[int, ...], seed: int, draws: int) -> Float64Array:
    """(draws, items) for normal scores of this shape (items, L)."""
    generator = np.random.default_rng([seed, 0xF1D])
    largest = np.empty((draws, shape[0]))
    for draw in range(draws):
        drawn = generator.standard_normal(shape)
        middle, width = _trimmed(drawn)
        largest[draw] = ((drawn - middle) / width).max(axis=1)
    return largest


@lru_cache(maxsize=16)
def _largest_of_models(
    n_models: int, shape: tuple[int, ...], seed: int, draws: int
) -> Float64Array:
    """(draws, 2 · K) for normal scores of this shape (2, K, L) of so many models and one more."""
    generator = np.random.default_rng([seed, 0x30D])
    largest = np.empty((draws, shape[0] * shape[1]))
    for draw in range(draws):
        drawn = generator.standard_normal((n_models + 1, *shape))
        middle, width = _pooled(drawn[1:])
        largest[draw] = ((drawn[0] - middle) / width).max(axis=2).ravel()
    return largest


def _trimmed(values: Float64Array) -> tuple[Float64Array, Float64Array]:
    """values (n, L) -> mean and standard deviation of each column without its largest values."""
    kept = np.sort(values, axis=0)[: len(values) - round(TRIMMED * len(values))]
    return kept.mean(axis=0), np.maximum(kept.std(axis=0, ddof=1), 1e-9)


def _pooled(clean: Float64Array) -> tuple[Float64Array, Float64Array]:
    """clean (M, 2, K, L) -> mean over models, and the standard deviation of one more model's score
    around it, (2, K, L) each."""
    m, mean = len(clean), clean.mean(axis=0)
    own = ((clean - mean) ** 2).sum(axis=0)
    pooled = own.mean(axis=(0, 1)) / (m - 1)
    variance = (own + PRIOR * pooled) / (m - 1 + PRIOR)
    return mean, np.maximum(np.sqrt(variance * (1 + 1 / m)), 1e-9)


def _null(
    scores: Float64Array, centre: Float64Array, spread: Float64Array, largest: Float64Array
) -> Null:
    """largest (DRAWS, 2 · K): of each item over its budgets, under the null."""
    standardised = (scores - centre) / spread
    found = standardised.max(axis=2).ravel()
    p_values = np.empty(len(found))
    order, so_far = np.argsort(-found, kind="stable"), 0.0
    for place, item in enumerate(order):
        # Step down: the largest of those that are left.
        rivals = largest[:, order[place:]].max(axis=1)
        so_far = max(so_far, (1 + int((rivals >= found[item]).sum())) / (len(rivals) + 1))
        p_values[item] = so_far
    return Null(
        standardised,
        float(found.max()),
        float(p_values.min()),
        p_values.reshape(scores.shape[:2]),
        largest.max(axis=1),
    )
