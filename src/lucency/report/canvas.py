"""One look for every figure, and one way to turn it into the same bytes each time."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#17212b"
SOFT = "#5b6772"
LINE = "#cfd6db"
WASH = "#eef1f3"

MODEL_INK: dict[Literal["backdoored", "clean"], str] = {
    "backdoored": "#9a3412",
    "clean": "#3f88ba",
}
"""Apart in hue, in lightness (37 against 54 of 100) and, in the figures, in shape."""
UNTRIGGERED_INK = "#7c8790"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lucency",
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": 12,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
"""Text stays text, in the reader's own sans serif; nothing in it is read as mathematics."""

_FONT_OF_FIGURE = re.compile(r"'DejaVu Sans'(?=[^<>]*\">)")
_FONT_OF_PAGE = "-apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


class Svg(NamedTuple):
    """A drawing as a data URI; width and height in CSS pixels."""

    uri: str
    width: int
    height: int


def draw(width: int, height: int, paint: Callable[[Axes], None]) -> Svg:
    """Let `paint` draw on one pair of axes of (width, height) CSS pixels."""
    stream = io.StringIO()
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # The reader's fonts draw the text, so a glyph that is missing here may well be there.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = _FONT_OF_FIGURE.sub(_FONT_OF_PAGE, stream.getvalue())
    encoded = base64.b64encode(text.encode()).decode("ascii")
    return Svg(f"data:image/svg+xml;base64,{encoded}", width, height)


def percent_axis(ticks: tuple[float, ...]) -> tuple[list[float], list[str]]:
    """Return tick positions and their labels in per cent, for a share axis."""
    return list(ticks), [f"{100 * tick:g} %" for tick in ticks]
