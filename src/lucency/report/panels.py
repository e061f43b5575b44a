"""One picture an image and method: the film, and beside it the map of each finding over it.

Every pixel of the film is k × k pixels of the picture and every cell of a map is drawn as it is.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle

from lucency.report.canvas import INK, SOFT
from lucency.report.overlay import Colour, Grey, Map, blend, blend_signed, enlarge

LARGE_PX, SMALL_PX = 448, 300
"""Wanted side of a film in the picture, where there are few and where there are many."""
FEW = 3
COLUMNS = 5
DPI = 100
_GAP, _TITLE, _BAR, _HEAD, _FOOT = 24, 52, 48, 40, 36
_MARK_PX = 11
_STRIP_PX = 9
_POINTS = 72 / DPI
_STYLE = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "text.color": INK,
}


@dataclass(frozen=True)
class Mark:
    """A place to be framed: its centre, where pixel (0, 0) has its own centre, and its size; in
    pixels of the film."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Panel:
    """One finding: its map (h, w) float32, raw; its logit; where the map is strongest, if it is
    strongest anywhere."""

    finding: str
    cells: Map
    logit: float
    peak: Mark | None = None


@dataclass(frozen=True)
class Place:
    """Where a film lies in the picture: left and top pixel, side of a pixel of the film."""

    x: int
    y: int
    scale: int


@dataclass(frozen=True)
class Layout:
    """width, height of the picture and the places of its films, the plain one first; pixels."""

    width: int
    height: int
    places: tuple[Place, ...]


def arrange(shape: tuple[int, int], n_panels: int) -> Layout:
    """Lay out the film of `shape` (height, width) and `n_panels` maps, row by row."""
    wanted = LARGE_PX if n_panels <= FEW else SMALL_PX
    scale = max(1, round(wanted / max(shape)))
    height, width = shape[0] * scale, shape[1] * scale
    columns = min(COLUMNS, n_panels + 1)
    rows = math.ceil((n_panels + 1) / columns)
    across, down = width + _GAP, _TITLE + height + _BAR
    places = tuple(
        Place(_GAP + i % columns * across, _HEAD + i // columns * down + _TITLE, scale)
        for i in range(n_panels + 1)
    )
    return Layout(_GAP + columns * across, _HEAD + rows * down + _FOOT, places)


def draw_panels(image: Grey, panels: Sequence[Panel], *, title: str, note: str) -> bytes:
    """Draw a picture as PNG bytes; the same arguments give the same bytes.

    image (H, W) uint8: what the network saw. A picture with a value below 0 in any map is drawn
    in two colours, with a scale from minus to plus the largest size of each map; otherwise in one,
    from 0. Scales are each map's own, and written beside it.
    """
    layout = arrange((image.shape[0], image.shape[1]), len(panels))
    is_signed = any(bool((panel.cells < 0).any()) for panel in panels)
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure((layout.width / DPI, layout.height / DPI), DPI, facecolor="white")
        FigureCanvasAgg(figure)
        sheet = _Sheet(figure, layout)
        sheet.write(_GAP, 26, title, size=17, weight="bold")
        first = layout.places[0]
        sheet.paste(np.repeat(image[:, :, None], 3, axis=2), first)
        sheet.write(first.x, first.y - 9, "the film as the network sees it", size=13)
        for panel, place in zip(panels, layout.places[1:], strict=True):
            _draw_panel(sheet, image, panel, place, is_signed)
        sheet.write(_GAP, layout.height - 12, note, size=12, colour=SOFT)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _draw_panel(sheet: _Sheet, image: Grey, panel: Panel, place: Place, is_signed: bool) -> None:
    width = image.shape[1] * place.scale
    tinted = blend_signed(image, panel.cells) if is_signed else blend(image, panel.cells)
    sheet.paste(tinted, place)
    probability = 1 / (1 + math.exp(-min(max(panel.logit, -700.0), 700.0)))
    name, room = panel.finding, max(8, width // 8)
    name = name if len(name) <= room else name[: room - 1] + "…"
    sheet.write(place.x, place.y - 28, name, size=15, weight="bold")
    legend = f"logit {_number(panel.logit, '+.2f')}, probability {probability:.2f}"
    sheet.write(place.x, place.y - 9, legend, size=13)
    below = place.y + image.shape[0] * place.scale
    largest = float(np.abs(np.nan_to_num(panel.cells, posinf=0.0, neginf=0.0)).max(initial=0.0))
    if largest == 0:
        sheet.write(place.x, below + 20, "the map is zero everywhere", size=12, colour=SOFT)
        return
    strip = Place(place.x, below + 6, 1)
    sheet.paste(_scale_strip(width, is_signed), strip)
    ends = ("0", _number(largest))
    if is_signed:
        ends = (f"{_number(-largest)} lowers", f"raises {_number(largest)}")
    sheet.write(place.x, below + 32, ends[0], size=12, colour=SOFT)
    sheet.write(place.x + width, below + 32, ends[1], size=12, colour=SOFT, align="right")
    if panel.peak is not None:
        sheet.frame(place, panel.peak, (image.shape[0], image.shape[1]))


def _number(value: float, form: str = ".3g") -> str:
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def _scale_strip(width: int, is_signed: bool) -> Colour:
    """The colours from the least to the largest value, over mid grey."""
    ground = np.full((_STRIP_PX, width), 96, dtype=np.uint8)
    values = np.linspace(-1 if is_signed else 0, 1, width, dtype=np.float32)[None, :]
    return blend_signed(ground, values) if is_signed else blend(ground, values)


class _Sheet:
    """A figure whose unit is the pixel, from the top left corner."""

    def __init__(self, figure: Figure, layout: Layout) -> None:
        self.layout = layout
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, layout.width)
        self.axes.set_ylim(layout.height, 0)
        self.figure = figure

    def paste(self, colour: Colour, place: Place) -> None:
        """Put pixels down one to one, each enlarged to scale × scale."""
        height, width = colour.shape[0] * place.scale, colour.shape[1] * place.scale
        pixels = enlarge(colour, height, width)
        below = self.layout.height - place.y - height
        self.figure.figimage(pixels, place.x, below, origin="upper", zorder=-1)

    def write(
        self,
        x: int,
        y: int,
        text: str,
        *,
        size: float,
        colour: str = INK,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        self.axes.text(x, y, text, fontsize=size * _POINTS, color=colour, weight=weight, ha=align)

    def frame(self, place: Place, mark: Mark, shape: tuple[int, int]) -> None:
        """Draw a line around a place of the film; around one too small to be seen, a ring."""
        x, y = (place.x + (mark.x + 0.5) * place.scale, place.y + (mark.y + 0.5) * place.scale)
        height, width = mark.height * place.scale, mark.width * place.scale
        ends = (shape[1] * place.scale + 4, shape[0] * place.scale + 4)
        film = Rectangle((place.x - 2, place.y - 2), *ends, transform=self.axes.transData)
        for thickness, ink in ((4.0, "#0a0e12"), (1.6, "#ffffff")):
            line = thickness * _POINTS
            outline: Patch = Circle((x, y), _MARK_PX, fill=False, lw=line, ec=ink)
            if min(height, width) >= 2 * _MARK_PX:
                corner = (x - width / 2 + 2, y - height / 2 + 2)
                outline = Rectangle(corner, width - 4, height - 4, fill=False, lw=line, ec=ink)
            self.axes.add_patch(outline)
            # Text lies above the film: a ring at its edge must not cross it.
            outline.set_clip_path(film)
