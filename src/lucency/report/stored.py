"""What a run folder holds for its report: the record, its tables and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lucency.errors import IntegrityError
from lucency.report.record import RunReport

PREDICTIONS = (
    "model", "condition", "image", "patient", "split", "finding", "label", "probability",
)  # fmt: skip
SCREENING = (
    "model", "condition", "image", "patient", "detector", "suspicion", "p_value", "flagged",
    "finding", "direction", "region_x", "region_y", "region_width", "region_height", "hit",
    "successful",
)  # fmt: skip


@dataclass(frozen=True)
class StoredRun:
    """One finished run, as read from its folder.

    predictions: one row per model, condition, image and finding.
    screening: one row per model, condition, image and detector.
    pictures: `{key}/image`, `{key}/attribution` and `{key}/gradcam` of every gallery case.
    """

    report: RunReport
    predictions: pl.DataFrame
    screening: pl.DataFrame
    pictures: dict[str, npt.NDArray[np.generic]]


def read_run(folder: Path) -> StoredRun:
    """Read what a report needs; a file that is absent, torn or of another shape is named."""
    return StoredRun(
        report=_read_report(folder / "report.json"),
        predictions=_read_table(folder / "predictions.parquet", PREDICTIONS),
        screening=_read_table(folder / "screening.parquet", SCREENING),
        pictures=_read_pictures(folder / "gallery.safetensors"),
    )


def _read_report(path: Path) -> RunReport:
    try:
        return RunReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise _unreadable(path, f"{where}: {first['msg']}") from error


def _read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=list(columns))
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened") from error
    except pl.exceptions.PolarsError as error:
        reason = f"expected a table with the columns {', '.join(columns)}"
        raise _unreadable(path, reason) from error


def _read_pictures(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        return dict(load_file(path))
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened") from error
    except SafetensorError as error:
        raise _unreadable(path, "expected a safetensors file") from error


def _unreadable(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"The report needs {path.name} in {path.parent}, and cannot read it ({reason}); "
        "run the experiment again."
    )
