"""A finished run as one self-contained HTML page: no script, no request, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from lucency.records import Float64Array, Performance
from lucency.report import detection_figures, figures, numbers, overlay
from lucency.report.canvas import Svg
from lucency.report.curves import Curve, roc
from lucency.report.environment import environment
from lucency.report.figures import MODELS, Model
from lucency.report.gallery import PICTURE_BUDGET, draw_case, within
from lucency.report.record import GalleryCase, RunReport
from lucency.report.stored import StoredRun, read_run
from lucency.report.tiles import headline_detector, headline_success, key_figures

MAX_PANELS = 24
MAX_SUCCESS_ROWS = 24
MAPS = {"attribution": "Attribution", "gradcam": "Grad-CAM"}

POINT_NAMES = {
    "specificity-0.95": "95 % specificity",
    "youden": "Youden",
    "0.6": "fixed at 0.6",
    "0.9": "fixed at 0.9",
}


class Panel(NamedTuple):
    """One finding's ROC curves and the areas under them, as text."""

    finding: str
    drawing: Svg
    areas: tuple[tuple[Model, str], ...]


class Case(NamedTuple):
    """One gallery case; `pictures` are (caption, PNG data URI), or empty with a reason."""

    case: GalleryCase
    pictures: tuple[tuple[str, str], ...]
    reason: str = ""


def render_run(folder: Path) -> str:
    """Return the HTML of a finished run, from the records stored in its folder alone.

    Reads `report.json`, `predictions.parquet`, `screening.parquet` and `gallery.safetensors`; the
    same files give the same bytes. Raises `IntegrityError` for one that cannot be read.
    """
    run = read_run(folder)
    report = run.report
    return environment().get_template("run.html.j2").render(
        run=report,
        verdict=report.verdict,
        tiles=key_figures(report),
        detector=headline_detector(report.detection),
        performances={(p.model, p.set_name): p for p in report.performances},
        clean_set=_clean_set(report.performances),
        excluded=_excluded(report.performances),
        points={(p.name, p.finding): p for p in report.operating_points},
        point_names=POINT_NAMES,
        headline=headline_success(report),
        panels=_panels(run),
        cases=_cases(run),
        scale_bar=overlay.scale_bar(),
        keys=overlay.keys(),
        drawings=_drawings(run),
    )  # fmt: skip


# --- what is drawn from the tables --------------------------------------------------------------


def _clean_set(performances: Sequence[Performance]) -> dict[Model, Performance]:
    return {p.model: p for p in performances if p.set_name == "NN"}


def _excluded(performances: Sequence[Performance]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Group the sets that leave out the same findings: (sets, reasons)."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in performances:
        if entry.excluded:
            name = f"{entry.set_name}, {entry.model}"
            groups.setdefault(entry.excluded, []).append(name)
    every = len(performances)
    return [
        (["every set"] if len(sets) == every else sets, reasons) for reasons, sets in groups.items()
    ]


def _drawings(run: StoredRun) -> dict[str, Svg]:
    """Draw every figure that this run has the numbers for."""
    report = run.report
    drawn: dict[str, Svg] = {}
    clean = _clean_set(report.performances)
    if clean:
        drawn["forest"] = figures.forest(clean, report.attack.target)
    if report.attack_success:
        drawn["success"] = figures.success(_success_rows(report))
    if any(victim.epochs for victim in report.victims):
        drawn["loss"] = figures.training(report.victims, "loss")
        drawn["auroc"] = figures.training(report.victims, "auroc")
    if report.attack.survival is not None:
        drawn["footprint"] = figures.footprint(report.attack.survival)
    spreads = [
        (name, spread)
        for name, spread in (
            ("all places", report.attack.survival_over_places),
            ("poisoned images", report.attack.survival_on_images),
            ("after augmentation", report.attack.survival_after_augmentation),
        )
        if spread is not None and spread.pixels
    ]
    if spreads:
        drawn["survival"] = figures.survival_shares(spreads)
    return drawn | _detection_drawings(run)


def _success_rows(report: RunReport) -> list[figures.SuccessRow]:
    aims = {(row.finding, row.direction) for row in report.attack_success}
    rows: list[figures.SuccessRow] = []
    for row in report.attack_success[:MAX_SUCCESS_ROWS]:
        name = POINT_NAMES.get(row.operating_point, figures.label(row.operating_point))
        aim = f"\n{row.direction} {figures.label(row.finding)}" if len(aims) > 1 else ""
        rows.append((name + aim, row.backdoored, row.clean_model, row.untriggered))
    return rows


def _detection_drawings(run: StoredRun) -> dict[str, Svg]:
    screening, main = run.screening, headline_detector(run.report.detection)
    drawn: dict[str, Svg] = {}
    p_values: dict[Model, Float64Array] = {}
    names = screening["detector"].unique(maintain_order=True).to_list()
    names.sort(key=lambda name: name != main)
    for model in MODELS:
        mine = screening.filter(pl.col("model") == model)
        clean = mine.filter((pl.col("condition") == "clean") & (pl.col("detector") == main))
        if len(clean):
            p_values[model] = clean["p_value"].to_numpy()
        curves = {name: _detection_curve(mine, name) for name in names}
        defined = {name: curve for name, curve in curves.items() if curve is not None}
        if defined:
            title = figures.MODEL_NAME[model].capitalize()
            drawn[f"detection_{model}"] = detection_figures.detection_roc(
                title, defined, max(1, len(clean))
            )
    if p_values:
        drawn["p_histogram"] = detection_figures.p_histogram(p_values)
        drawn["alarm_rate"] = detection_figures.alarm_rate(
            p_values, run.report.alpha, run.report.reference.n_calibration
        )
    return drawn


def _detection_curve(screening: pl.DataFrame, detector: str) -> Curve | None:
    rows = screening.filter(pl.col("detector") == detector)
    triggered = rows["condition"].to_numpy() == "triggered"
    return roc(triggered, rows["suspicion"].to_numpy().astype(np.float64))


def _panels(run: StoredRun) -> list[Panel]:
    """Draw the ROC curves of the clean test set, the target first."""
    clean = _clean_set(run.report.performances)
    test = run.predictions.filter(
        (pl.col("split") == "test") & (pl.col("condition") == "clean")
    ).drop_nulls("label")
    target = run.report.attack.target
    panels: list[Panel] = []
    for finding in sorted(run.report.data.findings, key=lambda name: name != target):
        rows = test.filter(pl.col("finding") == finding)
        curves = _finding_curves(rows)
        if curves and len(panels) < MAX_PANELS:
            areas = tuple((model, _area(clean.get(model), finding)) for model in curves)
            panels.append(Panel(finding, figures.roc_panel(finding, curves), areas))
    return panels


def _finding_curves(rows: pl.DataFrame) -> dict[Model, Curve]:
    curves: dict[Model, Curve] = {}
    for model in MODELS:
        mine = rows.filter(pl.col("model") == model)
        curve = roc(mine["label"].to_numpy() == 1, mine["probability"].to_numpy())
        if curve is not None:
            curves[model] = curve
    return curves


def _area(performance: Performance | None, finding: str) -> str:
    for row in performance.findings if performance else ():
        if row.finding == finding and row.auroc.value is not None:
            return numbers.share(row.auroc.value, 3)
    return numbers.UNDEFINED


# --- the gallery --------------------------------------------------------------------------------


def _cases(run: StoredRun) -> list[Case]:
    drawn = (
        draw_case(run.pictures, entry.key, MAPS, entry.region, entry.trigger)
        for entry in run.report.gallery
    )
    return [
        Case(entry, *case)
        for entry, case in zip(run.report.gallery, within(PICTURE_BUDGET, drawn), strict=True)
    ]
