"""What the scores of a model's findings are compared with, and the p-value that follows.

A test gives every direction and finding a score for each of its budgets, such as how far the best
stamp of 3 px moves the finding. On a clean model that is never nothing, and depends on network and
films. So each score is compared with scores of the same budget that no backdoor is behind: with the
other findings of the same model, or, where clean reference models are given, with what the same
search reaches on them. The largest standardised score over all findings, directions, budgets and
tests is the model's statistic (maxT), so that a hundred comparisons are one.

Beside clean models, each of them is compared with the others too, and the p-value is how likely one
more clean model has a statistic as large. So nothing is assumed of how scores are distributed:
where clean models differ much in some finding, all of their statistics say so. Only the tail beyond
the few models that there are is: that of Student's t, on the logarithm.

Other findings are a weak null: of 28 values the largest is asked for, and what is drawn for it are
independent normal variables. An attack that moves several findings hides among them, which is why
the largest tenth is left out of mean and spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import t as student

from lucency.records import Float64Array

DRAWS = 9999
PRIOR = 4
"""Degrees of freedom that the pooled variance over reference models has in a finding's."""
LEAST_WIDTH = 0.15
"""Standard deviation of log(1 + statistic) that clean models have at least: a few may agree by
chance, and the logarithm of a maximum still has a longer tail than Student's t."""
FARTHEST = 30.0
"""Beyond, the logarithm of a statistic is not followed."""
TRIMMED = 0.1
"""Share of the findings and directions, those of the largest scores, that say nothing of what is
usual."""


@dataclass(frozen=True)
class Null:
    """standardised (2, K, L): larger = more suspicious. statistic: the largest. p_value of the
    model, in [1 / (DRAWS + 1), 1]; p_values (2, K): of each direction and finding, corrected for
    all the others (maxT, Westfall and Young 1993; among findings step-down). largest (DRAWS,): the
    statistic under the null."""

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
    standardised = (scores - centre) / spread
    largest = _largest_of_findings(items.shape, seed, DRAWS)
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


def against_models(scores: Float64Array, reference: Float64Array) -> Null:
    """scores (2, K, L), compared with those (M, 2, K, L) of M ≥ 3 clean models, each finding and
    direction with itself. Its variance over models is shrunk towards that of all, as if `PRIOR`
    more models had said it: a few models say little of one finding, and findings differ.

    Of each clean model beside the others the statistic is known. One more clean model's follows
    from those: with y = log(1 + statistic) about normal, its y is about their mean, by as much as
    Student's t with M - 1 degrees of freedom times √(1 + 1/M) their standard deviation."""
    standardised = _beside(scores, reference)
    left_out = [
        _beside(model, np.delete(reference, i, axis=0)).max() for i, model in enumerate(reference)
    ]
    y = np.log1p(np.maximum(left_out, 0.0))
    m = len(y)
    width = max(float(y.std(ddof=1)), LEAST_WIDTH) * np.sqrt(1 + 1 / m)
    levels = (np.arange(DRAWS) + 0.5) / DRAWS
    largest = np.expm1(np.minimum(y.mean() + width * student.ppf(levels, m - 1), FARTHEST))
    found = standardised.max(axis=2)
    above = len(largest) - np.searchsorted(largest, found.ravel())
    p_values = ((1 + above) / (len(largest) + 1)).reshape(found.shape)
    return Null(standardised, float(found.max()), float(p_values.min()), p_values, largest)


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


def _trimmed(values: Float64Array) -> tuple[Float64Array, Float64Array]:
    """values (n, L) -> mean and standard deviation of each column without its largest values."""
    kept = np.sort(values, axis=0)[: len(values) - round(TRIMMED * len(values))]
    return kept.mean(axis=0), np.maximum(kept.std(axis=0, ddof=1), 1e-9)


def _beside(scores: Float64Array, clean: Float64Array) -> Float64Array:
    """scores (2, K, L) less the mean over clean models (M, 2, K, L), in standard deviations of one
    more model's score around it."""
    m, mean = len(clean), clean.mean(axis=0)
    own = ((clean - mean) ** 2).sum(axis=0)
    pooled = own.mean(axis=(0, 1)) / (m - 1)
    variance = (own + PRIOR * pooled) / (m - 1 + PRIOR)
    spread = np.maximum(np.sqrt(variance * (1 + 1 / m)), 1e-9)
    return np.asarray((scores - mean) / spread)
