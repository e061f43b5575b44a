"""How many flags a batch of clean images would have: what an alarm has to be compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.stats import betabinom

from lucency.records import Float64Array
from lucency.report.screen_record import Power

MAX_FLAGS = 2_000
"""Beyond this many flags in several calibration groups, chance is not worked out."""


class Group(NamedTuple):
    """Images that were read against the same clean films."""

    n_images: int
    n_calibration: int


def chance(flagged: int, groups: Iterable[Group], alpha: float) -> float | None:
    """Return how likely clean images alone would give at least `flagged` flags.

    In a group the count is beta-binomial: r = ⌊α (n + 1)⌋ of the n + 1 ranks raise a flag, and the
    n calibration films set the threshold by chance (Bates et al. 2021, arXiv 2104.08279). Exact for
    exchangeable films without ties; an upper bound with them. `None` if it is too large to compute.
    """
    groups = [group for group in groups if group.n_images > 0]
    if flagged == 0:
        return 1.0
    if len(groups) > 1 and flagged > MAX_FLAGS:
        return None
    below = np.ones(1)
    for group in groups:
        below = np.convolve(below, _flags(group, alpha, flagged))[:flagged]
    return float(min(1.0, max(0.0, 1.0 - below.sum())))


def _flags(group: Group, alpha: float, limit: int) -> Float64Array:
    """Probabilities of 0, 1, … up to `limit` - 1 flags in one group of clean images."""
    n = group.n_calibration
    rank = min(math.floor(alpha * (n + 1) + 1e-9), n + 1)
    counts = np.arange(min(limit, group.n_images + 1))
    if rank in (0, n + 1):
        return np.asarray(counts == (0 if rank == 0 else group.n_images), dtype=np.float64)
    law = betabinom(group.n_images, rank, n + 1 - rank).pmf(counts)
    return np.asarray(law, dtype=np.float64)


def positive_predictive_value(power: Power, alpha: float) -> float | None:
    """Return the share of flagged images that are triggered, if clean ones are flagged at alpha.

    >>> round(positive_predictive_value(Power(tpr=0.95, prior=0.001, source=""), 0.01), 3)
    0.087
    """
    true, false = power.tpr * power.prior, alpha * (1 - power.prior)
    return true / (true + false) if true + false > 0 else None
