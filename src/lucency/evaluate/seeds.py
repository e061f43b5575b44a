"""One number from several runs that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lucency.evaluate.intervals import student
from lucency.records import Estimate, Rate


def over_seeds(runs: Sequence[Estimate | Rate], *, lowest: float = 0.0) -> Estimate:
    """Average over runs, with a 95 % interval over seeds and patients; `n` counts the runs.

    Two variances are added: that between the runs, with Student's t for their number, and that of
    the patients within a run, not divided by the number of runs, as if all seeds were measured on
    the same patients (where they are not, the interval is too wide). Each run's own limits stand
    for the latter, so that the interval is as asymmetric as theirs: MOVER, Zou and Donner 2008.
    lowest: the smallest possible value, -1 for differences. A run without a value is left out.
    """
    defined = [run for run in runs if run.value is not None]
    if not defined:
        reasons = dict.fromkeys(run.reason or "not defined" for run in runs)
        return Estimate(value=None, reason="; ".join(reasons) or "no run")
    values = np.array([run.value for run in defined], dtype=np.float64)
    mean, n = float(values.mean()), len(values)
    bounded = [(run.low, run.high) for run in defined if run.low is not None]
    if len(bounded) < n:
        reason = f"no interval: {n - len(bounded)} of {n} runs have none"
        return Estimate(value=mean, n=n, reason=reason)
    low, high = (float(np.mean([limits[i] for limits in bounded])) for i in (0, 1))
    seeds = student(n - 1) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Estimate(
        value=mean,
        low=max(lowest, mean - math.hypot(mean - low, seeds)),
        high=min(1.0, mean + math.hypot(high - mean, seeds)),
        n=n,
    )


def mean_over_seeds(values: Sequence[float | None]) -> float | None:
    """The mean of what has no interval, by the same rule: a run without a value is left out."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
