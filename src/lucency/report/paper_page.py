"""A reproduction of the published experiment as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucency.report.environment import environment
from lucency.report.numbers import interval, share
from lucency.report.paper_record import PaperReport, VariantPoint
from lucency.report.stored import read_record
from lucency.report.sweep_figures import SIZE, Drawing, figures, point_name
from lucency.report.sweep_record import Axis, Point
from lucency.report.tiles import Tile

AGAIN = "start the reproduction again"
SHARE = 0.2
"""The share of poison that figures are drawn at; every grid has it."""


def render_paper(folder: Path) -> str:
    """Return the HTML of a reproduction, from its `report.json` alone; the same record gives the
    same bytes. Raises `IntegrityError` if it cannot be read."""
    report = read_record(folder / "report.json", PaperReport, AGAIN)
    return environment().get_template("paper.html.j2").render(
        report=report,
        verdict=report.verdict,
        tiles=_tiles(report),
        size_rows=figures_by_size(report.points),
        pitfall_rows=figures(
            [
                report.as_published,
                *(row.point for row in report.pitfalls if row.point is not None),
                report.all_corrected,
            ],
            (),
        ),
        kernels=tuple(report.survival[0].pixels),
        point_name=point_name,
    )  # fmt: skip


def figures_by_size(points: Sequence[VariantPoint]) -> list[tuple[Drawing, ...]]:
    """Success by native size and by what is left at the network's input, a line for each variant
    and place."""
    chosen = [_named(p) for p in points if (p.protocol, p.share) == ("replace", SHARE)]
    sizes = tuple(sorted({p.size_px for p in points}))
    drawn = figures(chosen, (Axis(name=SIZE, values=sizes),))
    # The first names every point, which the table does better.
    by_size = [row[0] for row in drawn[1:] if len(row) > 1]
    return [tuple(by_size)] if by_size else []


def _named(found: VariantPoint) -> Point:
    axes = {"case": found.variant, "place": found.place, SIZE: found.size_px}
    return found.point.model_copy(update={"axes": axes})


def _tiles(report: PaperReport) -> tuple[Tile, ...]:
    before, after = report.as_published, report.all_corrected
    tiles = []
    for name, point in (("As published, 4 px", before), ("Corrected, 4 px", after)):
        if point.success.value is None:
            tiles.append(Tile(name, None, point.success.reason or "no reason was recorded"))
            continue
        clean = point.success_clean_model.value
        beside = "not defined" if clean is None else share(clean)
        spread = interval(point.success.low, point.success.high) or ""
        tiles.append(
            Tile(f"{name}: success", share(point.success.value), spread, (f"clean model {beside}",))
        )
    for row in report.pointing:
        best = max(row.scores, key=lambda s: -1.0 if s.hits.value is None else s.hits.value)
        if best.hits.value is not None:
            tiles.append(
                Tile(f"Map on the trigger, {row.variant}", share(best.hits.value), best.method)
            )
    return tuple(tiles)
