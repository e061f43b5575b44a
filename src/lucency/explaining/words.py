"""An `ExplainRecord` for a terminal: the answer, and what to be careful about."""

from __future__ import annotations

from pathlib import Path

from lucency.config_faults import shown
from lucency.explaining.record import ExplainRecord, MapSummary


def in_words(record: ExplainRecord, folder: Path) -> str:
    """A line for each image, method and finding; names are made harmless for a terminal."""
    lines = []
    for image in record.images:
        lines.append(f"Image {image.number}: {shown(image.name)}")
        for explained in image.methods:
            lines.append(f"  {explained.method}: {explained.picture}")
            lines += [f"    {_of_map(summary)}" for summary in explained.maps]
    return "\n".join([*lines, f"Pictures, maps and explain.json: {shown(str(folder))}"])


def warnings_of(record: ExplainRecord) -> list[str]:
    """What could not be done, and what may not be trusted, a sentence each."""
    return [
        *(f"Image {r.number} ({shown(r.name)}) is left out: {r.reason}." for r in record.rejected),
        *(f"{s.method} is left out: {shown(s.reason)}" for s in record.skipped),
        *(shown(warning, 600) for warning in record.warnings),
    ]


def _of_map(summary: MapSummary) -> str:
    value = f"logit {summary.logit:+.2f}, probability {summary.probability:.3f}"
    where = f"no strongest place: {summary.reason}"
    if (box := summary.peak) is not None:
        where = f"strongest at x {_range(box.x, box.width)}, y {_range(box.y, box.height)}"
    return f"{shown(summary.finding)}: {value}; {where}"


def _range(start: int, size: int) -> str:
    return str(start) if size == 1 else f"{start} to {start + size - 1}"
