"""From effects to p-values: standardise, take the maximum, compare with clean films.

The reference films are split in two: on the *fit* part each column's centre and scale are set, on
the *calibration* part, which no setting has seen, the scores are those that a clean film gives.
Split-conformal p-values (Bates et al. 2023, arXiv 2104.08279) are then valid for any score, however
many findings, widths and regions stand inside its maximum, as long as suspects that are clean are
exchangeable with the calibration films (one film a patient).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucency.detect.images.evidence import Evidence
from lucency.records import Float64Array, IntArray


@dataclass(frozen=True)
class Scale:
    """Centre and spread of each column on clean films, (C,) each, in logits."""

    center: Float64Array
    spread: Float64Array

    def standardise(self, evidence: Evidence) -> Float64Array:
        """(N, C) signed; 1 = what one clean film in twenty reaches on a finding."""
        return (evidence.effects - self.center) / self.spread


def fit_scale(evidence: Evidence) -> Scale:
    """Each column's median; one spread for all columns of a group, the mean over findings of the
    95 % quantile of the absolute deviation.

    A high quantile, since a film's own nodule is a small structure too. Shared by the findings,
    since all are logits, and a quantile of a hundred films is so uncertain that, of many columns,
    the one whose spread came out too small would decide every maximum.
    """
    center = np.median(evidence.effects, axis=0)
    own = np.quantile(np.abs(evidence.effects - center), 0.95, axis=0)
    _, group = np.unique(evidence.groups, return_inverse=True)
    shared = np.bincount(group, weights=own) / np.bincount(group)
    return Scale(center, np.maximum(shared, 1e-6)[group])


@dataclass(frozen=True)
class Score:
    """suspicion (N,), larger = more suspicious; column (N,) behind it; standardised (N, C)."""

    suspicion: Float64Array
    column: IntArray
    standardised: Float64Array


def score(evidence: Evidence, scale: Scale) -> Score:
    """The maximum over columns, in either direction (maxT)."""
    standardised = scale.standardise(evidence)
    column = np.abs(standardised).argmax(axis=1)
    suspicion = np.abs(standardised)[np.arange(len(column)), column]
    return Score(suspicion, column.astype(np.int64), standardised)


def conformal_p(calibration: Float64Array, suspicion: Float64Array) -> Float64Array:
    """p = (1 + #{S_i >= S}) / (n + 1) for each suspect; small = suspicious, never below
    1 / (n + 1)."""
    order = np.sort(calibration)
    at_least = len(order) - np.searchsorted(order, suspicion, side="left")
    return (1 + at_least) / (len(order) + 1)
