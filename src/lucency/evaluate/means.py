"""A mean over images with an interval that knows that films of one patient are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lucency.evaluate.bootstrap import patient_index
from lucency.evaluate.checks import as_scores, same_length
from lucency.evaluate.intervals import student
from lucency.records import Estimate


def mean(
    values: npt.ArrayLike, patient_ids: Sequence[str], *, reason: str = "no image to count"
) -> Estimate:
    """Average N finite numbers, (N,), with a 95 % interval by patient.

    patient_ids: N names; reason: what to say if N = 0. The variance is that of the sums of
    residuals over each patient (Liang and Zeger 1986), with Student's t on the patients; one
    patient gives no interval.

    >>> mean([1.0, 3.0], ["a", "b"]).value
    2.0
    """
    numbers = as_scores(values, "values")
    same_length(values=len(numbers), patient_ids=len(patient_ids))
    n = len(numbers)
    if n == 0:
        return Estimate(value=None, reason=reason)
    patients = patient_index(patient_ids)
    n_patients = int(patients.max()) + 1
    average = float(numbers.mean())
    if n_patients < 2:
        return Estimate(value=average, n=n, reason="no interval: all images are of one patient")
    sums = np.bincount(patients, weights=numbers - average)
    variance = n_patients / (n_patients - 1) * float((sums**2).sum()) / n**2
    half = student(n_patients - 1) * variance**0.5
    return Estimate(value=average, low=average - half, high=average + half, n=n)
