"""How often things come back: what a number of times is out of the ordinary."""

from __future__ import annotations

import numpy as np

from lucency.detect.datasets.association import SMALLEST
from lucency.records import Float64Array, IntArray

UNKNOWN = 0.5
"""Share that is seen once more, of things of which there are hardly any."""


def beyond(sizes: IntArray, tested: IntArray, enough: int) -> Float64Array:
    """sizes (n,) ≥ 1: how often each of `n` things was seen; tested (m,): those of some of them.
    (m,): the probability that one of them is seen as often, or more; small = suspicious.

    Of those seen at least s times, the share that was seen once more is estimated at every s at
    which at least `enough` others were, plus one on either side; the largest of these shares is
    taken for all s, and `UNKNOWN` where there are never so many. By nature it grows with s, so
    beyond the last one it is a guess: p-values are too small where the tail is as heavy as a power
    and too large where it is light.
    """
    if not len(tested):
        return np.ones(0)
    # at_least[s]: seen s times or more
    at_least = np.cumsum(np.bincount(sizes)[::-1])[::-1]
    at_least = np.append(at_least, [0, 0])
    p_values = np.ones(len(tested))
    for i, size in enumerate(tested):
        seen = np.arange(1, size)
        others, again = at_least[seen] - 1, at_least[seen + 1] - 1
        counted = others >= enough
        share = UNKNOWN
        if counted.any():
            share = ((again[counted] + 1) / (others[counted] + 1)).max()
        p_values[i] = share ** (size - 1)
    return p_values.clip(SMALLEST, 1.0)
