"""A share of images with an interval that knows that films of one patient are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucency.evaluate.bootstrap import N_RESAMPLES, draw_resamples
from lucency.evaluate.checks import as_claims, same_length
from lucency.evaluate.intervals import Interval, clopper_pearson, wilson
from lucency.records import BoolArray, Rate


def rate(
    successes: BoolArray,
    patient_ids: Sequence[str],
    generator: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
    reason: str = "no image to count",
) -> Rate:
    """Count the successes among N images, with a 95 % interval by patient.

    successes (N,) bool; patient_ids: N names; reason: what to say if N = 0.
    The variance over patient resamples gives the effective number of independent trials, at most
    N, for Wilson's interval with Student's t on the patients. Where no resample can differ (all
    trials agree, or one patient) it is Clopper and Pearson's, with patients as trials.

    >>> rate(np.array([True, True]), ["a", "b"], np.random.default_rng(0)).value
    1.0
    """
    outcomes = as_claims(successes, "successes")
    same_length(successes=len(outcomes), patient_ids=len(patient_ids))
    n = len(outcomes)
    if n == 0:
        return Rate(successes=0, trials=0, value=None, reason=reason)
    low, high = _interval(outcomes, patient_ids, generator, n_resamples)
    total = int(outcomes.sum())
    return Rate(successes=total, trials=n, value=total / n, low=low, high=high)


def no_rate(reason: str) -> Rate:
    """Return the rate of nothing: no trials, no value, and why."""
    return Rate(successes=0, trials=0, value=None, reason=reason)


def _interval(
    outcomes: BoolArray,
    patient_ids: Sequence[str],
    generator: np.random.Generator,
    n_resamples: int,
) -> Interval:
    share, n_patients = float(outcomes.mean()), len(set(patient_ids))
    if n_patients < 2 or share in (0.0, 1.0):
        return clopper_pearson(share * n_patients, n_patients)
    drawn = draw_resamples(patient_ids, n_resamples, generator)
    trials = np.bincount(drawn.patients)
    successes = np.bincount(drawn.patients, weights=outcomes)
    shares = (successes @ drawn.counts) / (trials @ drawn.counts)
    variance = float(np.var(shares, ddof=1))
    at_most = len(outcomes)
    effective = min(at_most, share * (1 - share) / variance) if variance > 0 else at_most
    return wilson(share, effective, df=n_patients - 1)
