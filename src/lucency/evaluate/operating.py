"""Decision thresholds, fixed on clean validation images before any trigger is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lucency.evaluate.checks import as_labels, as_probabilities, as_table, same_length
from lucency.records import Float64Array, OperatingPoint

Choice = tuple[float | None, str | None]
"""A threshold, or ``None`` and why there is none."""


def operating_points(
    findings: Sequence[str], labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[OperatingPoint, ...]:
    """Fix four thresholds for each of K findings on the clean validation set.

    labels (N, K) in {1, 0, NaN}, NaN is left out; probabilities (N, K) in [0, 1].
    Positive if probability > threshold. "specificity-0.95" and "youden" are chosen here, "0.6"
    and "0.9" are the paper's. Ordered by finding, then by name as in `NAMES`.
    """
    truth = as_table(as_labels(labels), findings, "labels")
    values = as_table(as_probabilities(probabilities), findings, "probabilities")
    same_length(labels=len(truth), probabilities=len(values))
    return tuple(
        point
        for k, finding in enumerate(findings)
        for point in _points(finding, truth[:, k], values[:, k])
    )


def specificity_threshold(positive: Float64Array, negative: Float64Array) -> Choice:
    """Choose the smallest threshold that at least 95 % of the negatives do not exceed.

    At most floor(n / 20) of n negatives lie above it. It errs on the strict side: ties can raise
    the specificity further, and with fewer than 20 negatives it is the largest of them, so that
    none lies above. On new images it is 95 % only up to the sampling error of n.
    """
    n = len(negative)
    if n == 0:
        return None, f"no negative image among {len(positive)} with a known label"
    return float(np.sort(negative)[n - 1 - n // 20]), None


def youden_threshold(positive: Float64Array, negative: Float64Array) -> Choice:
    """Choose the threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    Every threshold in the gap between two neighbouring scores is equally good here: the middle
    is taken. Between equally good gaps the highest is taken: fewer false alarms.
    """
    if len(positive) == 0 or len(negative) == 0:
        missing = "positive" if len(positive) == 0 else "negative"
        return None, f"no {missing} image among {len(positive) + len(negative)}"
    scores = np.unique(np.concatenate([positive, negative]))
    n_true = len(positive) - np.searchsorted(np.sort(positive), scores, side="right")
    n_false = len(negative) - np.searchsorted(np.sort(negative), scores, side="right")
    gain = n_true * len(negative) - n_false * len(positive)  # whole numbers: ties are exact
    best = len(scores) - 1 - int(np.argmax(gain[::-1]))
    below, above = float(scores[best]), float(scores[min(best + 1, len(scores) - 1)])
    middle = below + (above - below) / 2
    return (middle if middle < above else below), None


def _fixed(threshold: float) -> Callable[[Float64Array, Float64Array], Choice]:
    return lambda positive, negative: (threshold, None)


NAMES = {
    "specificity-0.95": specificity_threshold,
    "youden": youden_threshold,
    "0.6": _fixed(0.6),
    "0.9": _fixed(0.9),
}
"""Name -> how its threshold is chosen from the positives' and the negatives' probabilities."""


def _points(finding: str, labels: Float64Array, values: Float64Array) -> list[OperatingPoint]:
    positive, negative = values[labels == 1], values[labels == 0]
    points = []
    for name, choose in NAMES.items():
        threshold, reason = choose(positive, negative)
        points.append(
            OperatingPoint.model_validate(
                {
                    "name": name,
                    "finding": finding,
                    "threshold": threshold,
                    "sensitivity": _share_above(positive, threshold),
                    "specificity": _share_not_above(negative, threshold),
                    "reason": reason,
                }
            )
        )
    return points


def _share_above(values: Float64Array, threshold: float | None) -> float | None:
    if threshold is None or len(values) == 0:
        return None
    return float(np.mean(values > threshold))


def _share_not_above(values: Float64Array, threshold: float | None) -> float | None:
    if threshold is None or len(values) == 0:
        return None
    return float(np.mean(values <= threshold))
