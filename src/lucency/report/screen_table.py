"""The lines of a screening as a flat table, one column a field: `screen.parquet`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from lucency.report.screen_record import ScreenedImage

SCORE = "score: "
"""A detector's score stands in the column ``score: NAME``."""

COLUMNS: dict[str, pl.DataType] = {
    "image": pl.String(),
    "status": pl.String(),
    "reason": pl.String(),
    "suspicion": pl.Float64(),
    "p_value": pl.Float64(),
    "q_value": pl.Float64(),
    "flagged": pl.Boolean(),
    "finding": pl.String(),
    "direction": pl.String(),
    "region_x": pl.Int64(),
    "region_y": pl.Int64(),
    "region_width": pl.Int64(),
    "region_height": pl.Int64(),
    "logit": pl.Float64(),
    "logit_without_region": pl.Float64(),
    "evidence": pl.String(),
    "view": pl.String(),
    "transplant_n_donors": pl.Int64(),
    "transplant_same_place": pl.Float64(),
    "transplant_elsewhere": pl.Float64(),
    "transplant_control": pl.Float64(),
    "transplant_transfers": pl.Boolean(),
    "negative": pl.String(),
    "seconds": pl.Float64(),
}
"""In this order, then the scores in the order in which their detectors first appear."""


def table(lines: Iterable[ScreenedImage]) -> pl.DataFrame:
    """Lay screened images out flat, a row each in the order given; what is undefined is null.

    A batch of none gives a table with all columns of `COLUMNS` and no row.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    scores: dict[str, list[float | None]] = {}
    n = 0
    for n, line in enumerate(lines, start=1):
        for name, value in _row(line).items():
            columns[name].append(value)
        for name, value in line.scores.items():
            scores.setdefault(name, [None] * (n - 1)).append(value)
        for values in scores.values():
            if len(values) < n:
                values.append(None)
    series = [pl.Series(name, columns[name], dtype=kind) for name, kind in COLUMNS.items()]
    series += [pl.Series(SCORE + name, values, dtype=pl.Float64) for name, values in scores.items()]
    return pl.DataFrame(series)


def _row(line: ScreenedImage) -> dict[str, Any]:
    region, transplant = line.region, line.transplant
    parts = {
        f"region_{name}": getattr(region, name, None) for name in ("x", "y", "width", "height")
    }
    parts |= {
        f"transplant_{name}": getattr(transplant, name, None)
        for name in ("n_donors", "same_place", "elsewhere", "control", "transfers")
    }
    return {name: parts[name] if name in parts else getattr(line, name) for name in COLUMNS}
