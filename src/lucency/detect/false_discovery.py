"""Many p-values at once."""

from __future__ import annotations

import numpy as np

from lucency.records import Float64Array


def benjamini_hochberg(p_values: Float64Array, n_tests: int | None = None) -> Float64Array:
    """q, of the same shape: the smallest false discovery rate at which each is among the
    discoveries (Benjamini and Hochberg 1995); small = suspicious.

    n_tests: how many were made, where `p_values` are the smallest of them only: their q are the
    same as if all were there, up to the largest p that is.
    """
    flat = p_values.ravel()
    n = n_tests or len(flat)
    order = np.argsort(flat, kind="stable")
    # n / rank first: it is at least 1, so that rounding lets no q fall below its p.
    ranked = flat[order] * (n / np.arange(1, len(flat) + 1))
    q = np.empty(len(flat))
    q[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return q.reshape(p_values.shape)
