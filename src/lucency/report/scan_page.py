"""A finished scan as one self-contained HTML page: no script, no request, all text escaped."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lucency.records import Box, Rate
from lucency.report import overlay
from lucency.report.environment import environment
from lucency.report.gallery import PICTURE_BUDGET, Arrays
from lucency.report.numbers import amount, count, p_number, percent
from lucency.report.scan_record import ScanReport, SharedThing
from lucency.report.stored import read_pictures, read_record
from lucency.report.tiles import Tile

AGAIN = "scan the data set again"
SCALE = 4
"""Times that close-ups are enlarged."""


class Shown(NamedTuple):
    """A thing that films share. film: the first film, a PNG data URI (`None` = no pictures).
    closes: what is shared, on several films."""

    thing: SharedThing
    film: str | None
    closes: tuple[str, ...]


def render_scan(folder: Path) -> str:
    """Return the HTML of a finished scan, from `scan.json` and `montage.safetensors` alone; the
    same files give the same bytes. Raises `IntegrityError` for one that cannot be read."""
    report = read_record(folder / "scan.json", ScanReport, AGAIN)
    pictures = read_pictures(folder / "montage.safetensors", AGAIN)
    return environment().get_template("scan.html.j2").render(
        report=report,
        verdict=report.words,
        warnings=(*report.data.notes, *report.warnings),
        tiles=_tiles(report),
        shown=_things(report, pictures),
    )  # fmt: skip


def _things(report: ScanReport, pictures: Arrays) -> list[Shown]:
    """Those with pictures, as long as the budget of the page lasts, and then those without."""
    shown, spent = [], 0
    for thing in report.things:
        film, closes = _draw(thing, pictures)
        spent += len(film or "") + sum(len(uri) for uri in closes)
        if spent > PICTURE_BUDGET:
            film, closes = None, ()
        shown.append(Shown(thing, film, closes))
    return shown


def _draw(thing: SharedThing, pictures: Arrays) -> tuple[str | None, tuple[str, ...]]:
    film, close, step, box = (
        pictures.get(f"{thing.key}/{name}") for name in ("film", "close", "step", "box")
    )
    if film is None or close is None or step is None or box is None:
        return None, ()
    y, x, height, width = (int(v) for v in box.astype(np.int64))
    scale = int(step.astype(np.int64)[0])
    where = Box(
        x=x // scale,
        y=y // scale,
        width=max(1, width // scale),
        height=max(1, height // scale),
    )
    whole = overlay.picture(_grey(film), None, where, None)
    return whole, tuple(_enlarged(each) for each in _grey(close))


def _enlarged(grey: overlay.Grey) -> str:
    large = overlay.enlarge(grey, grey.shape[0] * SCALE, grey.shape[1] * SCALE).astype(np.uint8)
    return overlay.png(overlay.blend(large, None))


def _grey(array: npt.NDArray[np.generic]) -> overlay.Grey:
    return array.astype(np.uint8)


def _of(value: Rate) -> str:
    return f"{count(value.successes)} of {count(value.trials)}"


def _tiles(report: ScanReport) -> tuple[Tile, ...]:
    rate = report.poison_rate
    first = report.things[0] if report.things else None
    spread = "" if rate.low is None or rate.high is None else (
        f"{percent(rate.low)} to {percent(rate.high)}"
    )  # fmt: skip
    return (
        Tile("Films flagged", count(report.n_flagged), f"of {count(report.data.n_films)}"),
        Tile(
            "Poison that was seen",
            percent(rate.value or 0.0),
            "of all films",
            (spread,) if spread else (),
        ),
        Tile(
            "Most suspicious",
            None if first is None else f"{first.direction} {first.finding}",
            "no label goes with anything shared"
            if first is None
            else f"{_of(first.with_label)} of its films have the label",
            () if first is None else (f"q = {p_number(first.q_value)}",),
        ),
        Tile("Copies", count(report.copies.n_films), "films that are there more than once",
             (f"{count(report.copies.n_conflicts)} groups with different labels",)),
        Tile("Compared", count(sum(t.comparisons for t in report.tests)), "labels with things"),
        Tile("Seconds", amount(report.seconds), f"{count(report.threads)} threads"),
    )  # fmt: skip
