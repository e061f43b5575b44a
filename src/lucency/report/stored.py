"""What a run folder holds for its report: the record, its tables and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lucency.errors import IntegrityError
from lucency.records import Record
from lucency.report.record import RunReport

R = TypeVar("R", bound=Record)

AGAIN = "run the experiment again"
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
        report=read_record(folder / "report.json", RunReport, AGAIN),
        predictions=read_table(folder / "predictions.parquet", PREDICTIONS, AGAIN),
        screening=read_table(folder / "screening.parquet", SCREENING, AGAIN),
        pictures=read_pictures(folder / "gallery.safetensors", AGAIN),
    )


def read_record(path: Path, kind: type[R], advice: str) -> R:
    """Read a record; `advice` says how to get a whole one. Raises `IntegrityError`, as do all."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened", advice) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise _unreadable(path, f"{where}: {first['msg']}", advice) from error


def read_table(path: Path, columns: Sequence[str], advice: str) -> pl.DataFrame:
    """Read the named columns of a Parquet file."""
    try:
        return pl.read_parquet(path, columns=list(columns))
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened", advice) from error
    except pl.exceptions.PolarsError as error:
        reason = f"expected a table with the columns {', '.join(columns)}"
        raise _unreadable(path, reason, advice) from error


def read_pictures(path: Path, advice: str) -> dict[str, npt.NDArray[np.generic]]:
    """Read the arrays of a gallery, by name."""
    try:
        return dict(load_file(path))
    except OSError as error:
        raise _unreadable(path, error.strerror or "it could not be opened", advice) from error
    except SafetensorError as error:
        raise _unreadable(path, "expected a safetensors file", advice) from error


def _unreadable(path: Path, reason: str, advice: str) -> IntegrityError:
    return IntegrityError(
        f"The report needs {path.name} in {path.parent}, and cannot read it ({reason}); {advice}."
    )
