"""What every metric asks of its arrays, in one place; each refusal is a `DataError`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.records import BoolArray, Float64Array


def same_length(**lengths: int) -> None:
    """Refuse arrays that do not describe the same images, e.g. `same_length(labels=3, ids=4)`."""
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DataError(f"Expected arrays of the same length, one row an image, got {found}.")


def as_labels(labels: npt.ArrayLike) -> Float64Array:
    """Return labels as float64 in {1, 0, NaN}, any shape; NaN = nothing is known."""
    values = np.asarray(labels, dtype=np.float64)
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        raise DataError(f"Expected labels in {{1, 0, NaN}}, got {values[wrong].flat[0]}.")
    return values


def as_scores(scores: npt.ArrayLike, name: str = "scores") -> Float64Array:
    """Return scores as float64, any shape; infinity can be ranked, NaN cannot."""
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise DataError(f"Expected {name} that can be ranked, got {np.isnan(values).sum()} NaN.")
    return values


def as_probabilities(probabilities: npt.ArrayLike, name: str = "probabilities") -> Float64Array:
    """Return probabilities as float64 in [0, 1], any shape."""
    values = as_scores(probabilities, name)
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise DataError(
            f"Expected {name} in [0, 1], got {values[outside].flat[0]}; "
            "apply the sigmoid to logits first."
        )
    return values


def as_claims(claims: npt.ArrayLike, name: str) -> BoolArray:
    """Return (N,) booleans; numbers are refused, so that a score is never read as a claim."""
    values = np.asarray(claims)
    if values.size == 0:
        values = values.astype(np.bool_)
    if values.dtype != np.bool_ or values.ndim != 1:
        raise DataError(
            f"Expected {name} as booleans of shape (N,), got {values.dtype} {values.shape}."
        )
    return values


def as_table(values: Float64Array, findings: Sequence[str], name: str) -> Float64Array:
    """Return (N, K) values, K columns named by `findings`."""
    if values.ndim != 2 or values.shape[1] != len(findings):
        raise DataError(
            f"Expected {name} of shape (N, {len(findings)}), one column a finding, "
            f"got {values.shape}."
        )
    return values
