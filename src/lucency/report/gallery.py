"""The pictures of one gallery case, drawn from its stored arrays, and how many a page may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lucency.records import Box
from lucency.report import overlay

CLOSE_UP_PX = 32
PICTURE_BUDGET = 4_000_000
"""Characters of picture data in one page; further cases are described without pictures."""

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Drawn(NamedTuple):
    """Pictures as (caption, PNG data URI), or none with a reason."""

    pictures: tuple[tuple[str, str], ...]
    reason: str = ""


def draw_case(
    arrays: Arrays,
    key: str,
    maps: Mapping[str, str],
    region: Box | None,
    trigger: Box | None,
    *,
    bare: bool = False,
) -> Drawn:
    """Draw the film, each of its maps, and the close-up of its region or trigger.

    arrays: `{key}/image` (H, W) uint8 and `{key}/{name}` (h, w), any resolution, for every name of
    `maps`, name -> caption; the first map also tints the close-up. Boxes in pixels of the film.
    bare: draw the close-up without a tint as well, so that the pixels themselves can be seen.
    """
    image = arrays.get(f"{key}/image")
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        return Drawn((), "the film is not in gallery.safetensors")
    film = image.astype(np.uint8)
    cells = {name: _cells(arrays.get(f"{key}/{name}")) for name in maps}
    drawn = [("Film", overlay.picture(film, None, region, trigger))]
    for name, caption in maps.items():
        values = cells[name]
        if values is not None:
            shape = f"{values.shape[0]} × {values.shape[1]} cells"
            drawn.append((f"{caption}, {shape}", overlay.picture(film, values, region, trigger)))
    if region is not None or trigger is not None:
        side = min(CLOSE_UP_PX, *film.shape)
        name, caption = next(iter(maps.items()))
        wanted = [("Close-up", cells[name])]
        if bare:
            wanted = [("Film, close-up", None), (f"{caption}, close-up", cells[name])]
        for words, values in wanted:
            close = overlay.close_up(film, values, region, trigger, side)
            drawn.append((f"{words}, {side} × {side} px", close))
    return Drawn(tuple(drawn))


def within(budget: int, cases: Iterable[Drawn]) -> Iterator[Drawn]:
    """Let cases through until their pictures exceed `budget` characters; say so for the others."""
    spent = 0
    for case in cases:
        spent += sum(len(uri) for _, uri in case.pictures)
        yield case if spent <= budget else Drawn(
            (), "left out to keep this page small; see gallery.safetensors"
        )  # fmt: skip


def _cells(values: npt.NDArray[np.generic] | None) -> overlay.Map | None:
    whole = values is not None and values.ndim == 2 and values.size
    return values.astype(np.float32) if values is not None and whole else None
