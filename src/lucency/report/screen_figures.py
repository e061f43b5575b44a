"""Figures of a screening: its p-values, and its images beside the clean calibration films."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lucency.records import BoolArray, Float64Array, IntArray
from lucency.report.canvas import INK, MODEL_INK, Svg, draw
from lucency.report.numbers import count, percent

FLAGGED_INK = MODEL_INK["backdoored"]
CLEAN_INK = MODEL_INK["clean"]
QUIET_INK = "#94a2ac"
BINS = 10
SUSPICION_BINS = 44


def p_values(values: Float64Array, flagged: BoolArray, alpha: float) -> Svg:
    """Draw the p-values (N,) of a batch in ten bins, with counts; clean ones would be level."""

    def paint(axes: Axes) -> None:
        # Right-closed bins: p = 0.1 belongs to the first.
        place = np.clip(np.ceil(values * BINS - 1e-9).astype(np.int64) - 1, 0, BINS - 1)
        every = np.bincount(place, minlength=BINS)
        hot = np.bincount(place[flagged], minlength=BINS)
        left = np.arange(BINS) / BINS
        axes.bar(left + 0.004, every - hot, 0.092, hot, align="edge", color=QUIET_INK)
        axes.bar(left + 0.004, hot, 0.092, align="edge", color=FLAGGED_INK)
        axes.axhline(len(values) / BINS, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        for x, n in zip(left, every, strict=True):
            axes.text(
                x + 0.05, n + 0.025 * every.max(), count(int(n)), ha="center", va="bottom",
                fontsize=10.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.42 * max(1, int(every.max()))))
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("p-value")
        axes.set_title("Images by p-value")
        handles = [
            Patch(color=FLAGGED_INK, label=f"flagged, p ≤ {percent(alpha)}"),
            Patch(color=QUIET_INK, label="not flagged"),
        ]
        axes.legend(handles=handles, loc="upper right", ncols=2, columnspacing=1.4)

    return draw(420, 300, paint)


def suspicions(screened: Float64Array, flagged: BoolArray, calibration: Float64Array) -> Svg:
    """Draw how suspicious the images (N,) are, upwards, and the calibration films, downwards.

    Heights are shares of each group. The axis is linear up to what 95 % of the clean films reach
    and logarithmic beyond, so that one glaring image does not press the others together.
    Triangles mark bars that hold flagged images.
    """

    def paint(axes: Axes) -> None:
        usual = float(np.quantile(np.abs(calibration), 0.95)) or 1.0
        low, high = _bend(np.array([screened.min(), screened.max()]), usual)
        least, most = _bend(np.array([calibration.min(), calibration.max()]), usual)
        edges = np.linspace(min(low, least) - 1e-9, max(high, most) + 1e-9, SUSPICION_BINS + 1)
        every = _shares(_bend(screened, usual), edges, len(screened))
        hot = _shares(_bend(screened[flagged], usual), edges, len(screened))
        clean = _shares(_bend(calibration, usual), edges, len(calibration))
        width = 0.86 * (edges[1] - edges[0])
        axes.bar(edges[:-1], every - hot, width, hot, align="edge", color=QUIET_INK)
        axes.bar(edges[:-1], hot, width, align="edge", color=FLAGGED_INK)
        axes.bar(edges[:-1], -clean, width, align="edge", color=CLEAN_INK)
        axes.axhline(0, color=INK, linewidth=0.8)
        # One image among thousands has a bar too low to be seen: each is marked as well.
        marks = edges[:-1][hot > 0] + width / 2
        top, bottom = max(every.max(), 0.02), max(clean.max(), 0.02)
        axes.plot(marks, hot[hot > 0] + 0.05 * top, "v", color=FLAGGED_INK, markersize=5)
        axes.set_ylim(-1.3 * bottom, 1.42 * top)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        ticks = _ticks(edges[0], edges[-1], usual)
        axes.set_xticks(_bend(np.array(ticks), usual), [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("suspicion (larger = more suspicious)")
        axes.set_title("Images and clean films")
        handles = [
            Patch(color=FLAGGED_INK, label=f"flagged, {count(int(flagged.sum()))}"),
            Patch(color=QUIET_INK, label=f"others, {count(int((~flagged).sum()))}"),
            Patch(color=CLEAN_INK, label=f"clean films, {count(len(calibration))}"),
        ]
        axes.legend(handles=handles, loc="upper right", fontsize=10.5)

    return draw(420, 300, paint)


def _bend(values: Float64Array, usual: float) -> Float64Array:
    bent: Float64Array = np.arcsinh(values / usual)
    return bent


def _shares(values: Float64Array, edges: Float64Array, n: int) -> Float64Array:
    counts: IntArray = np.histogram(values, edges)[0]
    return counts / max(1, n)


def _ticks(low: float, high: float, usual: float) -> list[float]:
    """Round values, evenly spread on the bent axis between low and high."""
    ticks: list[float] = []
    for place in np.linspace(low, high, 7)[1:-1]:
        value = usual * math.sinh(place)
        size = 10 ** math.floor(math.log10(max(abs(value), 0.1)))
        ticks.append(round(value / size) * size)
    return sorted({0.0 if abs(tick) < 1e-12 else float(f"{tick:.3g}") for tick in ticks})
