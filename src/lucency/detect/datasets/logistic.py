"""Many logistic regressions of one table at once, each with other weights of its rows."""

from __future__ import annotations

import numpy as np

from lucency.records import Float64Array

PENALTY = 1.0
"""Of squared coefficients but the first: as much as a few rows say."""
MOST_STEPS = 30
LONGEST = 2.0
"""Of a step in any coefficient: a finding that never comes with another has none that is finite."""
CLOSE = 1e-3
LARGEST = 30.0
"""Log-odds."""
TOGETHER = 30_000_000
"""Weights that are in memory at one time."""


def fit(rows: Float64Array, outcome: Float64Array, weights: Float64Array) -> Float64Array:
    """rows (C, D), the first column 1; outcome (C,) in [0, 1]: share of a row's cases that have it;
    weights (M, C): cases of each row in each of M regressions. (M, D): their coefficients, by
    Newton's method."""
    at_once = max(1, TOGETHER // max(1, len(rows)))
    parts = [
        _fit(rows, outcome, weights[first : first + at_once])
        for first in range(0, len(weights), at_once)
    ]
    return np.concatenate([np.zeros((0, rows.shape[1])), *parts])


def _fit(rows: Float64Array, outcome: Float64Array, weights: Float64Array) -> Float64Array:
    n, width = rows.shape
    products = (rows[:, :, None] * rows[:, None, :]).reshape(n, width * width)
    positive = weights @ outcome
    coefficients = np.zeros((len(weights), width))
    coefficients[:, 0] = np.log((positive + 0.5) / (weights.sum(axis=1) - positive + 0.5))
    penalty = np.full(width, PENALTY)
    penalty[0] = 1e-6
    for _ in range(MOST_STEPS):
        p = probabilities(rows, coefficients)
        slope = (weights * (outcome - p)) @ rows - penalty * coefficients
        curvature = ((weights * p * (1 - p)) @ products).reshape(-1, width, width)
        step = np.linalg.solve(curvature + np.diag(penalty), slope[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        coefficients += step * np.minimum(1, LONGEST / np.maximum(longest, CLOSE))
        if longest.max() < CLOSE:
            break
    return coefficients


def probabilities(rows: Float64Array, coefficients: Float64Array) -> Float64Array:
    """(M, C) in (0, 1)."""
    odds = np.clip(coefficients @ rows.T, -LARGEST, LARGEST)
    return np.asarray(1 / (1 + np.exp(-odds)))
