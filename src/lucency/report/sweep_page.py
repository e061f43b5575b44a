"""A finished sweep as one self-contained HTML page: no script, no request, all text escaped."""

from __future__ import annotations

from pathlib import Path

from lucency.records import Estimate
from lucency.report.environment import environment
from lucency.report.numbers import count, difference, interval, share
from lucency.report.stored import read_record, read_table
from lucency.report.sweep_figures import collateral, figures, point_name
from lucency.report.sweep_record import Point, SweepReport
from lucency.report.tiles import Tile

AGAIN = "start the sweep again"
MAX_POINTS, MAX_FAILED = 400, 100
FINDINGS = ("run", "model", "set", "finding", "is_target", "auroc")


def render_sweep(folder: Path) -> str:
    """Return the HTML of a sweep, from the records stored in its folder alone.

    Reads `report.json` and `findings.parquet`; the same files give the same bytes. Raises
    `IntegrityError` for one that cannot be read.
    """
    report = read_record(folder / "report.json", SweepReport, AGAIN)
    findings = read_table(folder / "findings.parquet", FINDINGS, AGAIN)
    drawings = figures(report.points, report.axes)
    lost = collateral(findings)
    return environment().get_template("sweep.html.j2").render(
        report=report,
        verdict=report.verdict,
        tiles=_tiles(report),
        rows=[*drawings, *([(lost,)] if lost else [])],
        points=report.points[:MAX_POINTS],
        failed=report.failed[:MAX_FAILED],
        is_visible=any(point.ssim_native is not None for point in report.points),
        point_name=point_name,
    )  # fmt: skip


def _tiles(report: SweepReport) -> tuple[Tile, ...]:
    def success(point: Point) -> float:
        return -1.0 if point.success.value is None else point.success.value

    def cost(point: Point) -> float:
        return 1.0 if point.difference.value is None else point.difference.value

    best, costliest = max(report.points, key=success), min(report.points, key=cost)
    n_done = report.n_runs - len(report.failed)
    return (
        Tile(
            "Runs",
            count(n_done),
            f"{_plural(len(report.points), 'point')} of the grid, "
            f"{_plural(len(report.seeds), 'seed')}",
            (f"{_plural(len(report.failed), 'run')} failed",) if report.failed else (),
        ),
        _tile("Highest attack success", best.success, best),
        _tile("Clean model, same films", best.success_clean_model, best),
        _tile("Largest cost in clean AUROC", costliest.difference, costliest, signed=True),
    )


def _tile(name: str, value: Estimate, point: Point, *, signed: bool = False) -> Tile:
    if value.value is None:
        return Tile(name, None, value.reason or "no reason was recorded", (point_name(point),))
    if signed:
        number, _, spread = difference(value).partition(" [")
        return Tile(name, number, f"[{spread}" if spread else "", (point_name(point),))
    spread = interval(value.low, value.high) or value.reason or ""
    return Tile(name, share(value.value), spread, (point_name(point),))


def _plural(n: int, word: str) -> str:
    return f"{count(n)} {word}{'' if n == 1 else 's'}"
