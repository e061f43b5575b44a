"""A finished audit as one self-contained HTML page: no script, no request, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from lucency.records import Rate
from lucency.report import overlay
from lucency.report.audit_record import AuditedFinding, AuditReport, FoundTrigger
from lucency.report.canvas import INK, MODEL_INK, WASH, Svg, draw
from lucency.report.environment import environment
from lucency.report.figures import label
from lucency.report.gallery import CLOSE_UP_PX, PICTURE_BUDGET, Arrays
from lucency.report.numbers import amount, count, p_number, percent
from lucency.report.stored import read_pictures, read_record
from lucency.report.tiles import Tile

AGAIN = "audit the model again"
WIDTH, HEAD, ROW = 620, 90, 24
FAR = 2.5
"""Times the largest suspicion: how far out the line may lie."""


class Effect(NamedTuple):
    """One clean film: pictures without and with the trigger, and the finding's probability."""

    before: str
    after: str
    probability_before: float
    probability_after: float


class Shown(NamedTuple):
    """A finding with its trigger; pictures: (caption, PNG data URI); effects: on clean films."""

    finding: AuditedFinding
    trigger: FoundTrigger
    pictures: tuple[tuple[str, str], ...]
    effects: tuple[Effect, ...]


def render_audit(folder: Path) -> str:
    """Return the HTML of a finished audit, from `audit.json` and `triggers.safetensors` alone; the
    same files give the same bytes. Raises `IntegrityError` for one that cannot be read."""
    report = read_record(folder / "audit.json", AuditReport, AGAIN)
    pictures = read_pictures(folder / "triggers.safetensors", AGAIN)
    return environment().get_template("audit.html.j2").render(
        report=report,
        verdict=report.words,
        warnings=(*report.model.warnings, *report.warnings),
        tiles=_tiles(report),
        drawing=strengths(report.findings, report.null.critical),
        shown=_triggers(report.findings, pictures),
    )  # fmt: skip


def strengths(findings: Sequence[AuditedFinding], critical: float) -> Svg:
    """Draw how far every finding stands out in either direction, beside what would be evidence."""
    names = list(dict.fromkeys(f.finding for f in findings))

    def paint(axes: Axes) -> None:
        for row in range(0, len(names), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=WASH, linewidth=0)
        for direction, marker, ink, shift in (
            ("set", "^", MODEL_INK["backdoored"], -0.16),
            ("clear", "v", MODEL_INK["clean"], 0.16),
        ):
            mine = [f for f in findings if f.direction == direction]
            rows = [names.index(f.finding) + shift for f in mine]
            axes.plot([f.suspicion for f in mine], rows, marker, color=ink, label=direction)
        line = (0, (4, 2))
        if critical <= FAR * max(f.suspicion for f in findings):
            axes.axvline(critical, color=INK, linewidth=1, linestyle=line, label="p ≤ α from here")
        else:
            # A few clean models put it so far out that the findings would be one column.
            axes.plot([], [], " ", label=f"p ≤ α from {critical:,.0f}, off the figure")
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("standard deviations above what is usual")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return draw(WIDTH, HEAD + ROW * len(names), paint)


def _triggers(findings: Sequence[AuditedFinding], pictures: Arrays) -> list[Shown]:
    """Those with a trigger, with pictures as long as the budget of the page lasts."""
    shown, spent = [], 0
    for finding in findings:
        if finding.trigger is None:
            continue
        drawn, effects = _draw(finding.trigger, pictures)
        spent += sum(len(uri) for _, uri in drawn) + sum(len(e.before + e.after) for e in effects)
        if spent > PICTURE_BUDGET:
            drawn, effects = (), ()
        shown.append(Shown(finding, finding.trigger, drawn, effects))
    return shown


def _draw(
    trigger: FoundTrigger, pictures: Arrays
) -> tuple[tuple[tuple[str, str], ...], tuple[Effect, ...]]:
    before, after, native = (
        pictures.get(f"{trigger.key}/{name}") for name in ("before", "after", "native")
    )
    if before is None or after is None or native is None or before.shape != after.shape:
        return (), ()
    clean, stamped, stored = (_grey(array) for array in (before, after, native))
    side = min(CLOSE_UP_PX, *clean.shape[1:])
    whole = overlay.picture(stamped[0], None, trigger.location, None)
    drawn = [("A clean film with the trigger", whole)]
    if trigger.location is not None:
        drawn += [
            (f"Without, {side} × {side} px", _close(clean[0], trigger, side)),
            (f"With, {side} × {side} px", _close(stamped[0], trigger, side)),
        ]
    height, width = stored.shape
    words = f"As stored, {width} × {height} px"
    drawn.append((words, overlay.picture(stored, None, None, None)))
    effects = (
        Effect(_picture(b), _picture(a), *probabilities)
        for b, a, probabilities in zip(clean, stamped, trigger.probabilities, strict=False)
    )
    return tuple(drawn), tuple(effects)


def _grey(array: npt.NDArray[np.generic]) -> overlay.Grey:
    return array.astype(np.uint8)


def _close(film: overlay.Grey, trigger: FoundTrigger, side: int) -> str:
    return overlay.close_up(film, None, trigger.location, None, side)


def _picture(film: overlay.Grey) -> str:
    return overlay.png(overlay.blend(film, None))


def _of(value: Rate) -> str:
    return f"{count(value.successes)} of {count(value.trials)}"


def _tiles(report: AuditReport) -> tuple[Tile, ...]:
    first = report.findings[0]
    trigger = first.trigger
    compared = "other findings of the model"
    if report.null.n_models:
        compared = f"{count(report.null.n_models)} clean reference models"
    passes = f"{count(report.forwards)} forwards, {count(report.backwards)} backwards"
    return (
        Tile("p-value of the model", p_number(report.p_value), f"α = {percent(report.alpha)}"),
        Tile(
            "Stands out by",
            amount(report.statistic),
            f"standard deviations; p ≤ α from {amount(report.null.critical)}",
            (f"{first.direction} {first.finding}",),
        ),
        Tile(
            "Clean films that obey its trigger",
            None if trigger is None else _of(trigger.obeyed),
            "no trigger was kept" if trigger is None else trigger.what,
            () if trigger is None else (f"without it {_of(trigger.before)}",),
        ),
        Tile("Compared with", count(report.null.comparisons), "scores", (compared,)),
        Tile("Clean films", count(report.n_films), "one a patient"),
        Tile("Seconds", amount(report.seconds), passes, (report.model.engine,)),
    )
