"""How unlike the reference a row is: the Mahalanobis distance, from few rows with many columns.

Columns are centred on their median and scaled by a quantile, so that a few odd rows in the
reference do not decide; a column that hardly varies there is not thereby a certainty, so its spread
is not let fall far below the others'. The covariance is shrunk (Ledoit and Wolf 2004), because with
as many columns as rows the raw one cannot be inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

from lucency.errors import DataError
from lucency.records import Float64Array

SMALLEST = 2
# Share of a normal column within one standard deviation of its median.
WITHIN_ONE = 0.68
# Least spread of a column, in spreads of the middle column.
LEAST = 0.3
# Films a direction, at least.
ROWS_PER_DIRECTION = 3


@dataclass(frozen=True)
class Whitening:
    """centre, spread (D,) of the columns. directions (D, d): what is kept of the scaled rows;
    None = everything, d = D. mean (d,), precision (d, d) of what is kept."""

    centre: Float64Array
    spread: Float64Array
    directions: Float64Array | None
    mean: Float64Array
    precision: Float64Array

    def deviation(self, rows: Float64Array) -> Float64Array:
        """Rows (N, D) -> (N,) ≥ 0, larger = less like the reference; about √d on average there."""
        away = self._kept(self.standardise(rows)) - self.mean
        squared = np.einsum("ni,ij,nj->n", away, self.precision, away)
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)))

    def standardise(self, rows: Float64Array) -> Float64Array:
        """Rows (N, D) -> (N, D): each column from its centre, in its spread."""
        return (rows - self.centre) / self.spread

    def _kept(self, scaled: Float64Array) -> Float64Array:
        return scaled if self.directions is None else scaled @ self.directions


def fit_whitening(
    rows: Float64Array, *, directions: int | None = None, one_unit: bool = False
) -> Whitening:
    """rows (n, D) of the reference; directions: keep only so many leading ones, and no more than a
    third of n; None keeps everything. one_unit: the columns are in the same unit already and are
    not scaled. Raises DataError for fewer than 2 rows."""
    require_rows(len(rows))
    centre = np.median(rows, axis=0)
    own = np.quantile(np.abs(rows - centre), WITHIN_ONE, axis=0)
    spread = np.maximum(own, max(LEAST * float(np.median(own)), 1e-9))
    if one_unit:
        spread = np.ones_like(spread)
    scaled = (rows - centre) / spread
    axes = None
    if directions is not None:
        count = max(min(directions, len(rows) // ROWS_PER_DIRECTION), 1)
        _, _, leading = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
        axes = leading[:count].T
    shrunk = LedoitWolf().fit(scaled if axes is None else scaled @ axes)
    return Whitening(centre, spread, axes, shrunk.location_, shrunk.precision_)


def require_rows(n: int) -> None:
    """Raises DataError unless `n` reference films are enough to speak of a spread."""
    if n < SMALLEST:
        raise DataError(
            f"At least {SMALLEST} clean reference films were expected, got {n}; give more trusted "
            "images."
        )
