"""Resampling by patient: the films of one patient are drawn together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucency.errors import DataError
from lucency.records import Float64Array, IntArray

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Resamples:
    """B resamples of P patients, drawn once and used for every finding and every model.

    patients: (N,) int64, the patient in [0, P) of each image.
    counts: (P, B) float64, how often each patient was drawn; each column sums to P.
    """

    patients: IntArray
    counts: Float64Array


def patient_index(patient_ids: Sequence[str]) -> IntArray:
    """Number the patients of N images, (N,) int64 in [0, P)."""
    if len(patient_ids) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.asarray(patient_ids), return_inverse=True)[1].astype(np.int64)


def draw_resamples(
    patient_ids: Sequence[str], n_resamples: int, generator: np.random.Generator
) -> Resamples:
    """Draw P patients with replacement, `n_resamples` >= 2 times (Efron 1979, by cluster)."""
    if n_resamples < 2:
        raise DataError(f"Expected at least 2 resamples, got {n_resamples}.")
    patients = patient_index(patient_ids)
    n_patients = int(patients.max(initial=-1)) + 1
    counts = np.empty((n_patients, n_resamples))
    for column in range(n_resamples if n_patients else 0):
        drawn = generator.integers(n_patients, size=n_patients)
        counts[:, column] = np.bincount(drawn, minlength=n_patients)
    return Resamples(patients, counts)


def patient_weights(
    patient_ids: Sequence[str], n_resamples: int, generator: np.random.Generator
) -> Float64Array:
    """Return how often each image stands in each resample, (n_resamples, N) float64."""
    resamples = draw_resamples(patient_ids, n_resamples, generator)
    return np.ascontiguousarray(resamples.counts[resamples.patients].T)
