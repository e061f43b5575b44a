"""From a ranking and its resamples to an `Estimate`: one finding, a mean, or a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lucency.evaluate.bootstrap import Resamples
from lucency.evaluate.intervals import (
    Interval,
    logit_interval,
    mean_df,
    student,
    unvarying_interval,
)
from lucency.evaluate.ranking import weighted_ranking
from lucency.records import Estimate, Float64Array, IntArray

Metric = Literal["auroc", "auprc"]


@dataclass(frozen=True)
class Ranked:
    """A metric on one set of labelled scores, and on each resample of its patients.

    value in [0, 1], higher is better; resamples (B,), NaN where a class was not drawn.
    n: labelled scores; n_rarer: patients in the class that fewer patients have; n_pairs: disjoint
    (positive, negative) pairs of different patients; resolution: half of one (positive, negative)
    pair's share of all of them, the closest that a resample is taken to come to 0 or 1.
    """

    value: float
    resamples: Float64Array
    n: int
    n_rarer: int
    n_pairs: int
    resolution: float

    @property
    def n_undefined(self) -> int:
        return int(np.isnan(self.resamples).sum())


def missing_class(labels: Float64Array) -> str | None:
    """Say why these labels, (N,) in {1, 0, NaN}, rank nothing; ``None`` if they have both classes.

    >>> missing_class(np.zeros(60))
    'no positive image among 60'
    """
    known = labels[~np.isnan(labels)]
    if len(known) == 0:
        return f"no image with a known label among {len(labels)}"
    for value, name in ((1, "positive"), (0, "negative")):
        if not np.any(known == value):
            return f"no {name} image among {len(known)}"
    return None


def rank(
    labels: Float64Array, scores: Float64Array, patients: IntArray, resamples: Resamples
) -> dict[Metric, Ranked]:
    """Measure AUROC and average precision on the set and on its resamples.

    labels (N,) in {1, 0}, both present; scores (N,); patients (N,): rows of `resamples.counts`.
    """
    weights = np.hstack([np.ones((len(resamples.counts), 1)), resamples.counts])
    auroc, auprc = weighted_ranking(labels, scores, weights, patients)
    positive, negative = np.unique(patients[labels == 1]), np.unique(patients[labels == 0])
    n_rarer = min(len(positive), len(negative))
    n_pairs = min(n_rarer, len(np.union1d(positive, negative)) // 2)
    half_pair = 0.5 / (float(np.sum(labels == 1)) * float(np.sum(labels == 0)))
    n = len(labels)
    return {
        "auroc": Ranked(float(auroc[0]), auroc[1:], n, n_rarer, n_pairs, half_pair),
        "auprc": Ranked(float(auprc[0]), auprc[1:], n, n_rarer, n_pairs, half_pair),
    }


def estimate(ranked: Ranked) -> Estimate:
    """Put the 95 % interval around a value, or say why there is none."""
    reason = _no_interval(ranked)
    if reason is not None:
        return _without_interval(ranked.value, ranked.n, ranked.n_undefined, reason)
    drawn = ranked.resamples[~np.isnan(ranked.resamples)]
    low, high = _interval(
        ranked.value, drawn, ranked.n_rarer - 1, ranked.n_pairs, ranked.resolution
    )
    return Estimate(
        value=ranked.value, low=low, high=high, n=ranked.n, undefined_resamples=ranked.n_undefined
    )


def mean_estimate(findings: Sequence[Ranked], *, nothing: str) -> Estimate:
    """Average over findings, on the set and on each resample; `nothing`: the reason if empty.

    A resample counts only if every finding is defined on it, and the mean has an interval only if
    every finding has one; its degrees of freedom are Satterthwaite's.
    """
    if not findings:
        return Estimate(value=None, reason=nothing)
    value, drawn, n_undefined, reason = _mean(findings)
    if reason is not None:
        return _without_interval(value, len(findings), n_undefined, reason)
    low, high = _interval(
        value,
        drawn,
        _mean_df(findings),
        min(f.n_pairs for f in findings),
        min(f.resolution for f in findings) / len(findings),
    )
    return Estimate(
        value=value, low=low, high=high, n=len(findings), undefined_resamples=n_undefined
    )


def difference_estimate(
    minuend: Sequence[Ranked], subtrahend: Sequence[Ranked], *, nothing: str
) -> Estimate:
    """Subtract two means over the same findings, resample by resample; in [-1, 1].

    Both must come from the same resamples; the interval is symmetric, with Student's t.
    """
    if not minuend:
        return Estimate(value=None, reason=nothing)
    paired = [_minus(a, b) for a, b in zip(minuend, subtrahend, strict=True)]
    value, drawn, n_undefined, reason = _mean(paired)
    if reason is None and np.ptp(drawn) < 1e-12:
        reason = "no interval: the difference is the same on every resample"
    if reason is not None:
        return _without_interval(value, len(paired), n_undefined, reason)
    half = student(_mean_df(paired)) * float(np.std(drawn, ddof=1))
    return Estimate(
        value=value,
        low=max(-1.0, value - half),
        high=min(1.0, value + half),
        n=len(paired),
        undefined_resamples=n_undefined,
    )


def _minus(a: Ranked, b: Ranked) -> Ranked:
    return Ranked(
        a.value - b.value, a.resamples - b.resamples, a.n, a.n_rarer, a.n_pairs, a.resolution
    )


def _mean(findings: Sequence[Ranked]) -> tuple[float, Float64Array, int, str | None]:
    """Return the mean, its defined resamples, the number of others, and why no interval."""
    value = float(np.mean([f.value for f in findings]))
    resamples = np.mean([f.resamples for f in findings], axis=0)
    undefined = np.isnan(resamples)
    n_undefined = int(undefined.sum())
    n_without = sum(_no_interval(f) is not None for f in findings)
    reason = (
        f"no interval: {n_without} of {len(findings)} findings have none"
        if n_without
        else _too_few(n_undefined, len(resamples))
    )
    return value, resamples[~undefined], n_undefined, reason


def _mean_df(findings: Sequence[Ranked]) -> float:
    variances = np.array([np.nanvar(f.resamples) for f in findings])
    return mean_df(variances, np.array([f.n_rarer - 1.0 for f in findings]))


def _interval(
    value: float, drawn: Float64Array, df: float, n_pairs: int, resolution: float
) -> Interval:
    if np.ptp(drawn) < 1e-12 or value in (0.0, 1.0):
        return unvarying_interval(value, n_pairs)
    return logit_interval(value, drawn, df, resolution)


def _no_interval(ranked: Ranked) -> str | None:
    if ranked.n_rarer < 2:
        return "no interval: all images of one class come from one patient"
    return _too_few(ranked.n_undefined, len(ranked.resamples))


def _too_few(n_undefined: int, n_resamples: int) -> str | None:
    if 2 * n_undefined <= n_resamples:
        return None
    return f"no interval: {n_undefined} of {n_resamples} resamples lack a class"


def _without_interval(value: float, n: int, n_undefined: int, reason: str) -> Estimate:
    return Estimate(value=value, n=n, undefined_resamples=n_undefined, reason=reason)
