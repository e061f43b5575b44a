"""How unlike the reference a row is: the Mahalanobis distance, from few rows with many columns.

Columns are centred on their median and scaled by a quantile, so that a few odd rows in the
reference do not decide; a column that hardly varies there is not thereby a certainty, so its spread
is not let fall far below the others'. The covariance is shrunk (Ledoit and Wolf 2004), because with
as many columns as rows the raw one cannot be inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage, shrunk_covariance

from lucency.errors import DataError
from lucency.records import Float64Array

SMALLEST = 2
# Share of a normal column within one standard deviation of its median.
WITHIN_ONE = 0.68
# Least spread of a column, in spreads of the middle column.
LEAST = 0.3
# Added to every variance, so that copies of one row do not make every row a copy.
RIDGE = 1e-6
# Rows that each direction must rest on: of those in which a distance is measured, and of those
# beside which a remainder is.
ROWS_PER_DIRECTION = 3
ROWS_PER_LEFT_OUT = 4


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


@dataclass(frozen=True)
class Remainder:
    """centre, spread (D,) of the columns; mean (D,) of the scaled rows, directions (D, d) along
    which the reference varies most."""

    centre: Float64Array
    spread: Float64Array
    mean: Float64Array
    directions: Float64Array

    def deviation(self, rows: Float64Array) -> Float64Array:
        """Rows (N, D) -> (N,) ≥ 0: the length of what the directions leave of a scaled row; larger
        = less like the reference."""
        away = (rows - self.centre) / self.spread - self.mean
        left = away - (away @ self.directions) @ self.directions.T
        return np.asarray(np.linalg.norm(left, axis=1))


def fit_whitening(
    rows: Float64Array,
    *,
    directions: int | None = None,
    one_unit: bool = False,
    least_shrinkage: float = 0.0,
) -> Whitening:
    """rows (n, D) of the reference; directions: keep only so many leading ones, and no more than a
    third of n; None keeps everything. one_unit: the columns are in the same unit already and are
    not scaled. least_shrinkage: towards equal variances, a fraction, where Ledoit and Wolf's is
    less; for rows that are no Gaussian, of which theirs makes too much of what hardly varies.
    Raises DataError for fewer than 2 rows."""
    require_rows(len(rows))
    centre, spread = _scale(rows)
    if one_unit:
        spread = np.ones_like(spread)
    scaled = (rows - centre) / spread
    axes = None
    if directions is not None:
        axes = _leading(scaled, min(directions, len(rows) // ROWS_PER_DIRECTION))
    kept = scaled if axes is None else scaled @ axes
    shrinkage = max(float(ledoit_wolf_shrinkage(kept)), least_shrinkage)
    covariance = shrunk_covariance(empirical_covariance(kept), shrinkage)
    precision = np.linalg.inv(covariance + RIDGE * np.eye(len(covariance)))
    return Whitening(centre, spread, axes, kept.mean(axis=0), precision)


def fit_remainder(rows: Float64Array) -> Remainder:
    """What a quarter of n leading directions of rows (n, D), and at most half of D, leave. Raises
    DataError for fewer than 2 rows."""
    require_rows(len(rows))
    centre, spread = _scale(rows)
    scaled = (rows - centre) / spread
    axes = _leading(scaled, min(len(rows) // ROWS_PER_LEFT_OUT, rows.shape[1] // 2))
    return Remainder(centre, spread, scaled.mean(axis=0), axes)


def _scale(rows: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Centre and spread of each column, (D,) each."""
    centre = np.median(rows, axis=0)
    own = np.quantile(np.abs(rows - centre), WITHIN_ONE, axis=0)
    return centre, np.maximum(own, max(LEAST * float(np.median(own)), 1e-9))


def _leading(scaled: Float64Array, count: int) -> Float64Array:
    """(D, count): the directions along which the rows vary most; at least one."""
    _, _, axes = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    return np.asarray(axes[: max(count, 1)].T)


def require_rows(n: int) -> None:
    """Raises DataError unless `n` reference films are enough to speak of a spread."""
    if n < SMALLEST:
        raise DataError(
            f"At least {SMALLEST} clean reference films were expected, got {n}; give more trusted "
            "images."
        )
