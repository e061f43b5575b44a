"""The answer in a few lines, for a terminal."""

from __future__ import annotations

from pathlib import Path

from lucency.config_faults import shown
from lucency.report.screen_record import ScreenedImage, ScreenReport
from lucency.runs import read_json

SHOWN = 20
LONGEST = 4096
"""Characters: a path is never longer."""


def describe_answer(folder: Path) -> str:
    """What a finished screening says: limits first, then the flagged images."""
    report = read_json(folder / "report.json", ScreenReport)
    counts, reference = report.counts, report.reference
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in report.limits), ""]
    lines.append(
        f"{counts.flagged} of {counts.screened} images were flagged at α = {report.alpha:g}; "
        f"{counts.expected_false_alarms:.1f} false alarms are expected if all are clean. "
        f"{counts.discoveries} remain at a false discovery rate of {counts.fdr:g}."
    )
    lines.append(
        f"P-values are read against {reference.n_calibration} clean films; none can be below "
        f"{reference.min_p:.4f}."
    )
    lines += [f"Warning: {w}" for w in (*report.model.warnings, *reference.warnings)]
    if report.shift.shifted and report.shift.sentence:
        lines.append(f"Warning: {report.shift.sentence}")
    flagged = [case.screened for case in report.gallery if case.screened.flagged]
    lines += [_line(image) for image in flagged[:SHOWN]]
    if counts.flagged > SHOWN:
        lines.append(f"… {counts.flagged - SHOWN} more in screen.jsonl")
    if counts.rejected:
        given = counts.screened + counts.rejected
        lines.append(
            f"{counts.rejected} of {given} images could not be used; screen.jsonl says why."
        )
    lines += ["", f"Report: {folder / 'report.html'}"]
    # Names of images and of findings are a stranger's.
    return "\n".join(shown(line, LONGEST) for line in lines)


def _line(image: ScreenedImage) -> str:
    name = shown(image.image, 80)
    if image.region is None or image.finding is None:
        return f"  {name}: p = {image.p_value:.4f}, unlike the clean films as a whole"
    box = image.region
    verb = "sets" if image.direction == "set" else "clears"
    return (
        f"  {name}: p = {image.p_value:.4f}, {box.width} × {box.height} px at ({box.x}, {box.y}) "
        f"{verb} {image.finding}"
    )
