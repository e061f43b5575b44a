"""A finished screening as one self-contained HTML page: no script, no request, all text escaped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lucency.records import Box
from lucency.report import overlay, screen_figures
from lucency.report.canvas import Svg
from lucency.report.chance import Group
from lucency.report.environment import environment
from lucency.report.gallery import PICTURE_BUDGET, Arrays, Drawn, draw_case, within
from lucency.report.screen_record import ScreenCase, ScreenReference, ScreenReport
from lucency.report.screen_table import COLUMNS
from lucency.report.screen_tiles import key_figures
from lucency.report.screen_words import Batch, give_verdict, images, warnings
from lucency.report.stored import read_pictures, read_record, read_table

MAX_CASES = 48
MAX_ROWS = 500
MAX_REJECTED = 200
MAPS = {"attribution": "Attribution"}
AGAIN = "screen the images again"


class Case(NamedTuple):
    """One gallery case; `drawn` holds its pictures, or says why there are none.

    n_calibration: clean films that its p-value was read against.
    """

    case: ScreenCase
    drawn: Drawn
    n_calibration: int


class Row(NamedTuple):
    """One image of the long table; `finding` with its direction, `region` in its own pixels."""

    image: str
    flagged: bool
    p_value: float
    q_value: float | None
    suspicion: float
    finding: str | None
    region: Box | None
    no_region: str


def render_screen(folder: Path) -> str:
    """Return the HTML of a finished screening, from the records stored in its folder alone.

    Reads `report.json`, `screen.parquet` and `gallery.safetensors`; the same files give the same
    bytes. Raises `IntegrityError` for one that cannot be read.
    """
    report = read_record(folder / "report.json", ScreenReport, AGAIN)
    lines = read_table(folder / "screen.parquet", tuple(COLUMNS), AGAIN)
    pictures = read_pictures(folder / "gallery.safetensors", AGAIN)
    screened = lines.filter(pl.col("status") == "ok")
    rejected = lines.filter(pl.col("status") == "rejected")
    batch = _batch(report, screened)
    return environment().get_template("screen.html.j2").render(
        report=report,
        verdict=give_verdict(report, batch),
        warnings=warnings(report),
        tiles=key_figures(report, batch, _lowest(screened)),
        drawings=_drawings(report, screened),
        cases=_cases(report, pictures),
        rows=_rows(screened),
        n_screened=len(screened),
        rejected=rejected.head(MAX_REJECTED).select("image", "reason").rows(),
        n_rejected=len(rejected),
        settings="\n".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            for name, value in report.settings.items()
        ),
        scale_bar=overlay.scale_bar(),
        key=overlay.keys()[0],
        images=images,
    )  # fmt: skip


def _batch(report: ScreenReport, screened: pl.DataFrame) -> Batch:
    """Count what the sentences need."""
    flagged = screened.filter(pl.col("flagged"))
    aims = flagged.drop_nulls(["finding", "direction"]).select("direction", "finding").rows()
    views = screened.group_by("view", maintain_order=True).len().rows()
    return Batch(
        groups=tuple(Group(n, _n_calibration(report.reference, view)) for view, n in views),
        n_local=len(flagged.filter(pl.col("evidence") == "local")),
        n_whole=len(flagged.filter(pl.col("evidence") == "whole-image")),
        suspected=Counter(f"{direction} {finding}" for direction, finding in aims),
        n_pasted=len(flagged.drop_nulls("transplant_transfers")),
        n_keys=len(flagged.filter(pl.col("transplant_transfers"))),
    )


def _n_calibration(reference: ScreenReference, view: str | None) -> int:
    pooled = reference.n_calibration
    return pooled if view is None else reference.by_view.get(view, pooled)


def _lowest(screened: pl.DataFrame) -> float | None:
    values = screened["p_value"].drop_nulls()
    return float(values.to_numpy().min()) if len(values) else None


def _drawings(report: ScreenReport, screened: pl.DataFrame) -> dict[str, Svg]:
    """Draw the figures that this batch has the numbers for."""
    if not len(screened):
        return {}
    flagged = screened["flagged"].fill_null(False).to_numpy().astype(np.bool_)
    p_values = screened["p_value"].to_numpy().astype(np.float64)
    drawn = {"p_values": screen_figures.p_values(p_values, flagged, report.alpha)}
    calibration = np.array(report.reference.suspicion, dtype=np.float64)
    if len(calibration):
        suspicion = screened["suspicion"].to_numpy().astype(np.float64)
        drawn["suspicion"] = screen_figures.suspicions(suspicion, flagged, calibration)
    return drawn


def _cases(report: ScreenReport, pictures: Arrays) -> list[Case]:
    """Draw the gallery, the most suspicious image first."""
    ordered = sorted(report.gallery, key=lambda case: -(case.screened.suspicion or 0.0))[:MAX_CASES]
    drawn = (draw_case(pictures, case.key, MAPS, case.region, None, bare=True) for case in ordered)
    return [
        Case(case, shown, _n_calibration(report.reference, case.screened.view))
        for case, shown in zip(ordered, within(PICTURE_BUDGET, drawn), strict=True)
    ]


def _rows(screened: pl.DataFrame) -> list[Row]:
    """Return the most suspicious images, at most `MAX_ROWS`."""
    ordered = screened.sort("suspicion", descending=True, maintain_order=True).head(MAX_ROWS)
    return [_row(line) for line in ordered.iter_rows(named=True)]


def _row(line: dict[str, Any]) -> Row:
    box = [line[f"region_{name}"] for name in ("x", "y", "width", "height")]
    named = line["finding"] is not None and line["direction"] is not None
    spread = "spread over the whole image" if line["evidence"] == "whole-image" else "no place"
    return Row(
        image=line["image"],
        flagged=bool(line["flagged"]),
        p_value=line["p_value"],
        q_value=line["q_value"],
        suspicion=line["suspicion"],
        finding=f"{line['direction']} {line['finding']}" if named else None,
        region=None if None in box else Box(x=box[0], y=box[1], width=box[2], height=box[3]),
        no_region=spread,
    )
