"""The points of the curves that a report draws. The areas under them come from the record."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lucency.records import BoolArray, Float64Array

MAX_POINTS = 240


class Curve(NamedTuple):
    """x (P,) and y (P,), both rising, fractions in [0, 1]."""

    x: Float64Array
    y: Float64Array


def roc(positive: BoolArray, score: Float64Array) -> Curve | None:
    """Return the false and true positive rates over all thresholds; None if a class is absent.

    positive (N,) bool; score (N,), higher = more positive. Ties share one threshold.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_ties]
    alarms = np.cumsum(~positive[order])[last_of_ties]
    return _thin(
        np.concatenate([[0.0], alarms / n_negative]), np.concatenate([[0.0], hits / n_positive])
    )


def below(values: Float64Array) -> Curve:
    """Return the share of `values` (N,) that are at most x, at every distinct x."""
    distinct, counts = np.unique(values, return_counts=True)
    return _thin(distinct, np.cumsum(counts) / len(values))


def _thin(x: Float64Array, y: Float64Array) -> Curve:
    """Drop the points inside straight runs, then keep at most `MAX_POINTS`, ends included."""
    corner = np.ones(len(x), dtype=np.bool_)
    dx, dy = np.diff(x), np.diff(y)
    corner[1:-1] = ~(((dx[:-1] == 0) & (dx[1:] == 0)) | ((dy[:-1] == 0) & (dy[1:] == 0)))
    x, y = x[corner], y[corner]
    if len(x) > MAX_POINTS:
        kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(np.int64))
        x, y = x[kept], y[kept]
    return Curve(x, y)
