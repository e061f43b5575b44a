"""The key figures of a screening, each beside what it has to be compared with."""

from __future__ import annotations

from lucency.report.numbers import UNDEFINED, amount, count, p_number, percent
from lucency.report.screen_record import ScreenReport
from lucency.report.screen_words import Batch, by_chance, expected, reachable
from lucency.report.tiles import Tile


def key_figures(report: ScreenReport, batch: Batch, lowest: float | None) -> tuple[Tile, ...]:
    """Return the tiles in reading order: alarms, their worth, the reference set, the cost.

    lowest: the smallest p-value of the batch.
    """
    counts, reference = report.counts, report.reference
    at = f"α = {percent(report.alpha)}"
    none = f"{UNDEFINED}: nothing was screened"
    some = counts.screened > 0
    share = (f"{percent(counts.flagged / counts.screened)} of them",) if counts.flagged else ()
    alarms = some and reachable(report)
    silent = none if not some else f"{UNDEFINED}: no image can be flagged with this reference set"
    often = by_chance(report, batch)
    return (
        Tile(
            "Images flagged",
            count(counts.flagged) if some else None,
            f"of {count(counts.screened)} screened, at {at}" if some else none,
            share,
        ),
        Tile(
            "False alarms expected",
            expected(counts.expected_false_alarms) if alarms else None,
            "if every image is clean" if alarms else silent,
            (often,) if often else (),
        ),
        Tile(
            "Left after correction",
            count(counts.discoveries) if some else None,
            f"at a false discovery rate of {percent(counts.fdr)}" if some else none,
        ),
        Tile(
            "Smallest p-value seen",
            None if lowest is None else p_number(lowest),
            none if lowest is None else f"smallest possible {p_number(reference.min_p)}",
        ),
        Tile(
            "Calibration films",
            count(reference.n_calibration),
            f"of {count(reference.n_films)} clean reference films",
            tuple(f"{count(n)} for view {view}" for view, n in reference.by_view.items())[:4],
        ),
        Tile(
            "Files rejected",
            count(counts.rejected),
            f"of {count(counts.screened + counts.rejected)} given",
        ),
        *_cost(report),
    )


def _cost(report: ScreenReport) -> tuple[Tile, Tile]:
    cost = report.cost
    reason = f"{UNDEFINED}: {cost.reason or 'it was not measured'}"
    passes = (
        f"{amount(cost.forwards)} forwards and {amount(cost.backwards)} backwards"
        if cost.forwards is not None and cost.backwards is not None
        else f"forwards and backwards {reason}"
    )
    speed = cost.images_per_second
    return (
        Tile(
            "Passes an image",
            None if cost.forward_equivalents is None else amount(cost.forward_equivalents),
            reason if cost.forward_equivalents is None else "a backward counts as two forwards",
            (passes,) if cost.forward_equivalents is not None else (),
        ),
        Tile(
            "Images a second",
            None if speed is None else amount(speed),
            reason if speed is None else f"{amount(cost.seconds)} s for the batch",
            (report.model.engine,),
        ),
    )
