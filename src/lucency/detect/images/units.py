"""One unit for suspicions of different tests: what one clean film in twenty reaches.

A film that took part in saying what is usual looks less odd than a stranger. So units are fitted on
what the clean films look like to a fit that they were no part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from lucency.detect.images import frequency
from lucency.detect.images.feature_distance import distance, fit_distance
from lucency.detect.images.stages import Look
from lucency.records import Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim


@dataclass(frozen=True)
class Unit:
    """Turns a suspicion into units: 0 = the clean median, 1 = what one clean film in twenty
    reaches."""

    zero: float
    one: float

    def of(self, suspicion: Float64Array) -> Float64Array:
        return (suspicion - self.zero) / (self.one - self.zero)


def fit_bound(oddness: Float64Array, share: float) -> float:
    """What `share` of clean films exceeds, if logarithms of oddness are normal: of fifty films, the
    quantile itself would be that of two or three. A share of 1 is everything."""
    if share >= 1:
        return -np.inf
    logs = np.log(np.maximum(oddness, 1e-6))
    return float(np.exp(logs.mean() + norm.isf(share) * logs.std()))


def tempered(units: Float64Array) -> Float64Array:
    """Beyond one unit, its logarithm: a companion has a long tail on clean films, and must not
    bury the evidence of an intervention."""
    return np.where(units > 1, 1 + np.log(np.maximum(units, 1)), units)


def fit_unit(on_clean: Float64Array, *, from_zero: bool = False) -> Unit:
    """from_zero: the suspicion is a ratio to begin with. One stays above zero, though the films be
    copies of one."""
    zero = 0.0 if from_zero else float(np.median(on_clean))
    return Unit(zero, max(float(np.quantile(on_clean, 0.95)), zero + 1e-6))


def folds_of(n: int, folds: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows of each fold that has any, and those of the others."""
    fold = np.arange(n) % folds
    for held_out in np.unique(fold):
        yield np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)


def apart_distances(seen: Look, folds: int) -> Float64Array:
    """Each film's feature distance from a fit on the other folds."""
    apart = np.empty(len(seen))
    for here, there in folds_of(len(seen), folds):
        some, others = seen.rows(here), seen.rows(there)
        fitted = fit_distance(others.features, others.logits)
        apart[here] = distance(fitted, some.features, some.logits)
    return apart


def apart_spectra(victim: Victim, films: NetworkInputs, folds: int, seed: int) -> Float64Array:
    """Each film's spectrum suspicion from a fit on the other folds."""
    apart = np.empty(len(films))
    for here, there in folds_of(len(films), folds):
        apart[here] = frequency.fit(victim, films[there], seed)(films[here])
    return apart
