"""How well scores rank positives above negatives: AUROC and average precision.

One implementation serves a single set and thousands of resamples of it: the images are sorted
once, and each resample is only a different column of weights on the same order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.evaluate.checks import as_labels, as_scores, same_length
from lucency.records import Float64Array, IntArray

CHUNK = 2**15
"""Numbers held in memory per step (rows x resamples): small enough for the processor's cache."""


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Return the share of (positive, negative) pairs that the scores order correctly.

    labels (N,) in {1, 0, NaN}, NaN is left out; scores (N,), larger = more positive.
    A tied pair counts half. In [0, 1], higher is better, 0.5 = chance; ``None`` without both
    classes. Mann and Whitney 1947; Hanley and McNeil 1982.

    >>> auroc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    return _single(labels, scores)[0]


def auprc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Return the average precision: the sum over thresholds of (recall gained) x (precision).

    Arguments as for `auroc`. In [0, 1], higher is better; chance is the prevalence. Equal to
    scikit-learn's `average_precision_score`, except that it is ``None`` without both classes.

    >>> auprc([0, 1, 0, 1], [0.1, 0.9, 0.4, 0.8])
    1.0
    """
    return _single(labels, scores)[1]


def weighted_ranking(
    labels: Float64Array, scores: Float64Array, weights: Float64Array, rows: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Return AUROC and average precision under each of B weightings, two arrays (B,).

    labels (N,) in {1, 0}; scores (N,); weights (M, B) >= 0, whose row `rows[i]`, rows (N,) in
    [0, M), weighs image i: patients weigh all their images alike. NaN, in memory only, marks a
    weighting under which one class has no weight.
    """
    n_resamples = weights.shape[1]
    order = np.argsort(-scores, kind="stable")
    is_positive = labels[order] == 1
    starts = _group_starts(scores[order], is_positive)
    step = max(8, CHUNK // max(len(order), 1))
    areas, precisions = np.empty(n_resamples), np.empty(n_resamples)
    for first in range(0, n_resamples, step):
        columns = slice(first, first + step)
        chunk = np.take(np.ascontiguousarray(weights[:, columns]), rows[order], axis=0)
        areas[columns], precisions[columns] = _integrate(chunk, is_positive, starts)
    return areas, precisions


def _single(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float | None, float | None]:
    truth, values = as_labels(labels), as_scores(scores)
    if truth.ndim != 1 or values.ndim != 1:
        raise DataError(f"Expected labels and scores (N,), got {truth.shape} and {values.shape}.")
    same_length(labels=len(truth), scores=len(values))
    known = ~np.isnan(truth)
    truth, values = truth[known], values[known]
    if not (np.any(truth == 1) and np.any(truth == 0)):
        return None, None
    area, precision = weighted_ranking(
        truth, values, np.ones((1, 1)), np.zeros(len(truth), dtype=np.int64)
    )
    return float(area[0]), float(precision[0])


def _group_starts(scores: Float64Array, is_positive: npt.NDArray[np.bool_]) -> IntArray:
    """Return where the tie groups of descending scores begin, (G,).

    Neighbouring groups of negatives alone are merged: neither metric can tell them apart, and
    with rare positives this leaves little to integrate.
    """
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(scores[1:] != scores[:-1]) + 1])
    has_positive = np.logical_or.reduceat(is_positive, starts)
    keep = np.concatenate([[True], has_positive[1:] | has_positive[:-1]])
    kept: IntArray = starts[keep].astype(np.int64)
    return kept


def _integrate(
    weights: Float64Array, is_positive: npt.NDArray[np.bool_], starts: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Integrate both curves over tie groups; weights (N, b), images by descending score."""
    if len(starts) == 0:
        nothing = np.full(weights.shape[1], np.nan)
        return nothing, nothing
    gained = np.add.reduceat(weights * is_positive[:, None], starts, axis=0)  # (G, b)
    passed = np.add.reduceat(weights, starts, axis=0) - gained  # (G, b)
    true, false = np.cumsum(gained, axis=0), np.cumsum(passed, axis=0)
    n_true, n_false = true[-1], false[-1]
    defined = (n_true > 0) & (n_false > 0)
    pairs = np.where(defined, n_true * n_false, np.nan)
    area = np.sum(passed * (true - gained / 2), axis=0) / pairs
    seen = true + false
    precision = np.divide(true, seen, out=np.zeros_like(true), where=seen > 0)
    average = np.sum(gained * precision, axis=0) / np.where(defined, n_true, np.nan)
    return area, average
