"""Many p-values at once."""

from __future__ import annotations

import numpy as np

from lucency.records import Float64Array


def benjamini_hochberg(p_values: Float64Array) -> Float64Array:
    """q, of the same shape: the smallest false discovery rate at which each is among the
    discoveries (Benjamini and Hochberg 1995); small = suspicious."""
    flat = p_values.ravel()
    n = len(flat)
    order = np.argsort(flat, kind="stable")
    # n / rank first: it is at least 1, so that rounding lets no q fall below its p.
    ranked = flat[order] * (n / np.arange(1, n + 1))
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return q.reshape(p_values.shape)
