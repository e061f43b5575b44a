"""From effects to p-values: standardise, take the maximum, compare with clean films.

The reference films are split in two: on the *fit* part each column's centre and scale are set, on
the *calibration* part, which no setting has seen, the scores are those that a clean film gives.
Split-conformal p-values (Bates et al. 2023, arXiv 2104.08279) are then valid for any score, however
many findings, widths and regions stand inside its maximum, as long as suspects that are clean are
exchangeable with the calibration films (one film a patient). The p-values of a batch share one
calibration set, which makes them positively dependent: Benjamini–Hochberg still holds (ibid.).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucency.detect.images.evidence import Evidence
from lucency.records import Float64Array, IntArray


@dataclass(frozen=True)
class Scale:
    """Centre and spread of each column on clean films, (C,) each, in logits.

    deviation (C,): standard deviation of the column's finding over clean films, in logits: what a
    change must be measured by before it is called material.
    """

    center: Float64Array
    spread: Float64Array
    deviation: Float64Array

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
    return Scale(center, np.maximum(shared, 1e-6)[group], evidence.logits.std(axis=0))


@dataclass(frozen=True)
class Score:
    """suspicion (N,) >= 0, larger = more suspicious; column (N,) behind it; standardised (N, C)."""

    suspicion: Float64Array
    column: IntArray
    standardised: Float64Array


def score(
    evidence: Evidence,
    scale: Scale,
    material: float = 0.0,
    relevance: Float64Array | None = None,
) -> Score:
    """The maximum over columns, in either direction (maxT).

    material: effects count only as far as they exceed this many standard deviations of their
    finding's clean logits. A film on which every effect is smaller has suspicion 0: unusual or
    not, such a change alters no answer. relevance (N, C) > 0: what each effect counts for; None =
    one for all.
    """
    standardised = scale.standardise(evidence)
    idle = material * scale.deviation / scale.spread
    excess = np.maximum(np.abs(standardised) - idle, 0.0)
    if relevance is not None:
        excess = excess * relevance
    rows = np.arange(len(excess))
    # Where nothing is material, the column that moved most still says where to look.
    column = np.where(
        excess.any(axis=1), excess.argmax(axis=1), np.abs(standardised).argmax(axis=1)
    )
    return Score(excess[rows, column], column.astype(np.int64), standardised)


def conformal_p(calibration: Float64Array, suspicion: Float64Array) -> Float64Array:
    """p = (1 + #{S_i >= S}) / (n + 1) for each suspect; small = suspicious, never below
    1 / (n + 1)."""
    order = np.sort(calibration)
    at_least = len(order) - np.searchsorted(order, suspicion, side="left")
    return (1 + at_least) / (len(order) + 1)
