"""The long tables of a run, from which every figure can be drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import expit

from lucency.data.inputs import Inputs
from lucency.detect.images.screen import DETECTORS, POINTING, Screening
from lucency.experiment.films import Films
from lucency.experiment.measure import Logits, Measured, Screenings
from lucency.experiment.settings import ExperimentSettings
from lucency.manifest import read_json
from lucency.records import Condition, Epoch, FloatArray, Record, Rejected


class TrainingRecord(Record):
    """`training.json` beside a model's weights."""

    epochs: tuple[Epoch, ...]


def read_epochs(path: Path) -> tuple[Epoch, ...]:
    """Raises IntegrityError for a torn file."""
    return read_json(path, TrainingRecord).epochs


def names(
    settings: ExperimentSettings, films: Films, inputs: Inputs
) -> tuple[list[str], list[str]]:
    """Image and patient names of films, or row numbers where names are to be hidden."""
    if settings.report.hide_names:
        order = {p: i for i, p in enumerate(dict.fromkeys(films.radiographs.patient_ids))}
        patients = [f"patient {order[p]}" for p in films.patients(inputs)]
        return [f"image {row}" for row in inputs.rows], patients
    return [films.radiographs.image_ids[row] for row in inputs.rows], films.patients(inputs)


def ledger(settings: ExperimentSettings, films: Films) -> pl.DataFrame:
    """A row a poisoned training film: what was done to it."""
    images, patients = names(settings, films, films.poisoned)
    return films.ledger.table(films.radiographs).with_columns(
        pl.Series("image", images, dtype=pl.String), pl.Series("patient", patients, dtype=pl.String)
    )


def rejected(settings: ExperimentSettings, films: Films) -> tuple[Rejected, ...]:
    """The files that could not be used; a number in place of the name where names are hidden."""
    if not settings.report.hide_names:
        return films.rejected
    return tuple(
        Rejected(image=f"rejected file {i + 1}", reason=r.reason)
        for i, r in enumerate(films.rejected)
    )


def predictions(settings: ExperimentSettings, films: Films, logits: Logits) -> pl.DataFrame:
    """A row for each model, condition, film and finding: true label and probability."""
    parts = []
    for model, each in logits.items():
        for name, values in each.items():
            split = "validation" if name == "validation" else "test"
            condition: Condition = "triggered" if name == "triggered" else "clean"
            inputs = films.validation if name == "validation" else films.of(condition)
            parts.append(_long(settings, films, inputs, values, model, condition, split))
    return pl.concat(parts)


def _long(
    settings: ExperimentSettings,
    films: Films,
    inputs: Inputs,
    logits: FloatArray,
    model: str,
    condition: str,
    split: str,
) -> pl.DataFrame:
    n, k = logits.shape
    images, patients = names(settings, films, inputs)
    return pl.DataFrame(
        {
            "model": [model] * (n * k),
            "condition": [condition] * (n * k),
            "image": np.repeat(images, k),
            "patient": np.repeat(patients, k),
            "split": [split] * (n * k),
            "finding": list(films.radiographs.findings) * n,
            "label": films.labels(inputs).ravel(),
            "probability": expit(logits.astype(np.float64)).ravel(),
        }
    ).with_columns(pl.col("label").fill_nan(None))


def screening(
    settings: ExperimentSettings, films: Films, screenings: Screenings, measured: Measured
) -> pl.DataFrame:
    """A row for each model, condition, film and detector. The ledger's columns, `hit` and
    `successful`, are null for clean films, and `hit` for a trigger without a place."""
    parts = []
    for model, each in screenings.items():
        for condition, screened in each.items():
            for detector in DETECTORS:
                part = _screened(settings, films, films.of(condition), screened, detector)
                triggered = condition == "triggered"
                part = part.with_columns(
                    pl.lit(model).alias("model"),
                    pl.lit(condition).alias("condition"),
                    pl.Series(
                        "hit",
                        measured.hits[model]
                        if triggered and detector in POINTING and measured.hits is not None
                        else [None] * len(part),
                        dtype=pl.Boolean,
                    ),
                    pl.Series(
                        "successful",
                        measured.successful[model] if triggered else [None] * len(part),
                        dtype=pl.Boolean,
                    ),
                )
                parts.append(part)
    return pl.concat(parts)


def _screened(
    settings: ExperimentSettings,
    films: Films,
    inputs: Inputs,
    screened: Screening,
    detector: str,
) -> pl.DataFrame:
    images, patients = names(settings, films, inputs)
    n = len(images)
    findings = films.radiographs.findings
    table = pl.DataFrame(
        {
            "image": images,
            "patient": patients,
            "detector": [detector] * n,
            "suspicion": screened.suspicion[detector],
            "p_value": screened.p_value[detector],
            "flagged": screened.p_value[detector] <= settings.detect.alpha,
            "finding": [findings[i] for i in screened.finding],
            "direction": ["set" if s else "clear" for s in screened.is_set],
        }
    )
    box = pl.DataFrame(
        {
            name: pl.Series(
                screened.boxes[:, i] if detector in POINTING else [None] * n, dtype=pl.Int64
            )
            for i, name in enumerate(("region_x", "region_y", "region_width", "region_height"))
        }
    )
    return pl.concat([table, box], how="horizontal")
