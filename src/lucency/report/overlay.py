"""A film with a map laid over it: the map's true cells, never smoothed, and boxes beside pixels."""

from __future__ import annotations

import base64
import io
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from lucency.records import Box

Grey = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
Dash = Literal["solid", "dashed"]

COLOURS = "viridis"
OPACITY = 0.85
"""Of the strongest cell; a cell at zero leaves the film as it is."""
FOR_INK = (255, 150, 30)
AGAINST_INK = (70, 150, 255)
"""Of a signed map, over film of any grey: what raises the logit, and what lowers it."""
DISPLAY_PX = 448
REGION_INK = (255, 176, 0)
TRIGGER_INK = (90, 200, 255)
_DASH_PX = 6
_SEEN_PX = (20, 40)
"""Least sides, in display pixels, of a region's and a trigger's box on the whole film."""


def enlarge(cells: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[np.generic]:
    """Repeat each cell of (h, w, ...) over its share of (height, width); nothing is blended."""
    rows = np.arange(height) * cells.shape[0] // height
    columns = np.arange(width) * cells.shape[1] // width
    enlarged: npt.NDArray[np.generic] = cells[rows[:, None], columns[None, :]]
    return enlarged


def strength(cells: Map) -> Map:
    """Scale a map to [0, 1] by its own largest value; what speaks against the finding is 0."""
    positive = np.maximum(np.nan_to_num(cells, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    peak = float(positive.max(initial=0.0))
    return (positive / peak if peak > 0 else positive).astype(np.float32)


def blend(image: Grey, cells: Map | None) -> Colour:
    """Return (H, W, 3) uint8: the film, each pixel tinted by the cell that it lies in."""
    grey = np.repeat(image[:, :, None].astype(np.float64), 3, axis=2)
    if cells is None:
        return grey.astype(np.uint8)
    value = enlarge(strength(cells), *image.shape).astype(np.float64)
    tint = 255 * matplotlib.colormaps[COLOURS](value)[:, :, :3]
    alpha = OPACITY * np.sqrt(value)[:, :, None]
    blended: Colour = np.rint((1 - alpha) * grey + alpha * tint).astype(np.uint8)
    return blended


def signed_strength(cells: Map) -> Map:
    """Scale a map to [-1, 1] by its own largest size, so that 0 stays 0."""
    finite = np.nan_to_num(cells, nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(np.abs(finite).max(initial=0.0))
    return (finite / peak if peak > 0 else finite).astype(np.float32)


def blend_signed(image: Grey, cells: Map) -> Colour:
    """Return (H, W, 3) uint8: the film, each pixel tinted by the sign and size of its cell."""
    value = enlarge(signed_strength(cells), *image.shape).astype(np.float64)[:, :, None]
    tint = np.where(value > 0, np.array(FOR_INK, np.float64), np.array(AGAINST_INK, np.float64))
    alpha = OPACITY * np.sqrt(np.abs(value))
    blended: Colour = np.rint((1 - alpha) * image[:, :, None] + alpha * tint).astype(np.uint8)
    return blended


def picture(image: Grey, cells: Map | None, region: Box | None, trigger: Box | None) -> str:
    """Draw a film with its map and boxes, as a PNG data URI.

    image (H, W) uint8; cells (h, w), any resolution; region (solid) and trigger (dashed) in pixels
    of the film. A box is drawn around its pixels, never on them, and wide enough to be seen.
    """
    scale = max(1, DISPLAY_PX // max(image.shape))
    return png(_framed(blend(image, cells), scale, (0, 0), region, trigger, _SEEN_PX))


def close_up(
    image: Grey, cells: Map | None, region: Box | None, trigger: Box | None, side: int
) -> str:
    """Draw the `side` × `side` pixels around the region, or else the trigger, enlarged."""
    height, width = image.shape
    side = min(side, height, width)
    centre = region or trigger or Box(x=width // 2, y=height // 2, width=0, height=0)
    x = min(max(centre.x + centre.width // 2 - side // 2, 0), width - side)
    y = min(max(centre.y + centre.height // 2 - side // 2, 0), height - side)
    window = blend(image, cells)[y : y + side, x : x + side]
    return png(_framed(window, max(1, DISPLAY_PX // side), (x, y), region, trigger, (0, 0)))


def _framed(
    colour: Colour,
    scale: int,
    origin: tuple[int, int],
    region: Box | None,
    trigger: Box | None,
    least: tuple[int, int],
) -> Colour:
    canvas = enlarge(colour, colour.shape[0] * scale, colour.shape[1] * scale).astype(np.uint8)
    if trigger is not None:
        _frame(canvas, trigger, scale, origin, TRIGGER_INK, least[1], "dashed")
    if region is not None:
        _frame(canvas, region, scale, origin, REGION_INK, least[0], "solid")
    return canvas


def _frame(
    canvas: Colour,
    box: Box,
    scale: int,
    origin: tuple[int, int],
    ink: tuple[int, int, int],
    least: int,
    dash: Dash,
) -> None:
    """Draw, in place, a dark line with a bright core around a box of at least `least` pixels."""
    gap_x = max(0, least - box.width * scale) // 2
    gap_y = max(0, least - box.height * scale) // 2
    left = (box.x - origin[0]) * scale - gap_x
    top = (box.y - origin[1]) * scale - gap_y
    right = (box.x + box.width - origin[0]) * scale + gap_x
    bottom = (box.y + box.height - origin[1]) * scale + gap_y
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    outside = np.maximum(
        np.maximum(left - columns, columns - right + 1), np.maximum(top - rows, rows - bottom + 1)
    )
    canvas[(outside >= 1) & (outside <= 6)] = (10, 14, 18)
    core = (outside >= 2) & (outside <= 5)
    if dash == "dashed":
        core = core & ((rows + columns) // _DASH_PX % 2 == 0)
    canvas[core] = ink


def scale_bar() -> str:
    """Draw the colour scale from 0 to a map's largest value, over mid grey, as a PNG data URI."""
    cells = np.linspace(0, 1, 64, dtype=np.float32)[None, :]
    return png(blend(np.full((8, 256), 96, dtype=np.uint8), cells))


def keys() -> tuple[str, str]:
    """Draw the two kinds of box as small PNG data URIs: region, trigger."""
    ground = np.full((22, 22, 3), 96, dtype=np.uint8)
    box = Box(x=7, y=7, width=8, height=8)
    return (
        png(_framed(ground, 1, (0, 0), box, None, (0, 0))),
        png(_framed(ground, 1, (0, 0), None, box, (0, 0))),
    )


def png(colour: Colour) -> str:
    """Encode (H, W, 3) uint8 as a PNG data URI; the same pixels give the same bytes."""
    stream = io.BytesIO()
    PillowImage.fromarray(colour, "RGB").save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
