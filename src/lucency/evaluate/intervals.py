"""95 % intervals that keep their promise near 0 and 1 and with few patients.

Percentiles of a bootstrap do not: with 18 positive patients and a true AUROC of 0.96 they cover
83 %. So the bootstrap supplies the spread only, and the shape comes from a scale on which the
estimate is closer to normal, with Student's t for the number of patients. `tests/evaluate/
test_coverage.py` measures the coverage.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, t

from lucency.records import Float64Array

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2

Interval = tuple[float, float]


def student(df: float) -> float:
    """Return the two-sided 95 % quantile of Student's t with `df` > 0 degrees of freedom."""
    return float(t.ppf(1 - TAIL, df))


def clopper_pearson(successes: float, trials: float) -> Interval:
    """Return the exact interval of a share, for independent trials (Clopper and Pearson 1934).

    successes in [0, trials], trials > 0; fractions are allowed, for shares of patients.
    """
    low = beta.ppf(TAIL, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - TAIL, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def wilson(share: float, trials: float, df: float) -> Interval:
    """Return Wilson's interval (1927) of a share in (0, 1), with Student's t for the normal.

    trials: effective number of independent trials, > 0; df: patients minus one.
    """
    z2 = student(df) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def logit_interval(value: float, resamples: Float64Array, df: float, resolution: float) -> Interval:
    """Return the interval of a value in (0, 1), symmetric on the logit scale.

    resamples (B,) finite, in [0, 1]: the value on each resample; their spread is measured on the
    logit scale, where they are kept `resolution` away from 0 and 1 (at most as far as the value).
    """
    margin = min(resolution, value, 1 - value)
    deviation = float(np.std(logit(np.clip(resamples, margin, 1 - margin)), ddof=1))
    half = student(df) * deviation
    low, high = expit(logit(value) - half), expit(logit(value) + half)
    return min(float(low), value), max(float(high), value)


def unvarying_interval(value: float, n_pairs: int) -> Interval:
    """Return an interval for an AUROC on which all resamples agree, such as a perfect one.

    n_pairs >= 1: how many (positive, negative) pairs of different patients can be formed without
    using a patient twice. All of these independent pairs had the same outcome, so the next one
    has it with probability >= 0.025 ** (1 / n_pairs), and may fall anywhere otherwise. It covers
    more than 95 %, so it is wide: 20 pairs and AUROC 1 give [0.83, 1]. For average precision, which
    is 1 exactly when the AUROC is, the same bound is used as an approximation.
    """
    agreed = TAIL ** (1 / n_pairs)
    low = value * agreed
    return low, min(1.0, max(value, low + (1 - agreed)))


def mean_df(variances: Float64Array, dfs: Float64Array) -> float:
    """Return the degrees of freedom of a sum with these parts, (K,) each (Satterthwaite 1946)."""
    total = float(np.sum(variances))
    if total == 0:
        return float(np.min(dfs))
    return total**2 / float(np.sum(variances**2 / dfs))
