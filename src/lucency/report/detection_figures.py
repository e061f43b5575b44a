"""Figures of what the detectors say: detection ROC and the calibration of p-values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import betabinom

from lucency.records import Float64Array
from lucency.report.canvas import INK, LINE, MODEL_INK, SOFT, WASH, Svg, draw, percent_axis
from lucency.report.curves import Curve, below
from lucency.report.figures import DASHES, MODEL_NAME, MODELS, Model, label
from lucency.report.numbers import percent

LOWEST_RATE = 0.001
_TICKS = (0.001, 0.01, 0.1, 1.0)
_LINES = (("-", INK, 2.2), ("--", "#5f7484", 1.7), (":", "#5f7484", 1.9), ("-.", "#94a2ac", 1.6))


def detection_roc(title: str, curves: Mapping[str, Curve], n_clean: int) -> Svg:
    """Draw detection over false alarms, logarithmic, for each detector; the main one first."""

    def paint(axes: Axes) -> None:
        chance = np.geomspace(LOWEST_RATE, 1, 60)
        axes.axvline(0.01, color=LINE, linewidth=0.9)
        if 1 / n_clean > LOWEST_RATE:
            axes.axvspan(LOWEST_RATE, 1 / n_clean, color=WASH, linewidth=0, zorder=0)
        for place, (name, curve) in enumerate(curves.items()):
            dashes, ink, width = _LINES[place % len(_LINES)]
            axes.step(np.maximum(curve.x, LOWEST_RATE), curve.y, where="post", color=ink,
                      linestyle=dashes, linewidth=width, label=label(name))  # fmt: skip
        axes.plot(chance, chance, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label="chance")
        axes.set_xscale("log")
        axes.set(xlim=(LOWEST_RATE, 1), ylim=(-0.02, 1.02))
        axes.set_xticks(*percent_axis(_TICKS))
        axes.set_yticks(*percent_axis((0, 0.25, 0.5, 0.75, 1)))
        axes.minorticks_off()
        axes.set_xlabel("Clean images flagged")
        axes.set_ylabel("Triggered images flagged")
        axes.set_title(title)
        axes.legend(loc="best")

    return draw(420, 320, paint)


def p_histogram(p_values: Mapping[Model, Float64Array]) -> Svg:
    """Draw the p-values of clean images in ten bins; they should be level."""

    def paint(axes: Axes) -> None:
        edges = np.linspace(0, 1, 11)
        for model, side in zip(MODELS, (0.0, 0.05), strict=True):
            values = p_values.get(model)
            if values is None:
                continue
            bins = np.minimum(np.ceil(values * 10 - 1e-9).astype(np.int64), 10) - 1
            shares = np.bincount(np.maximum(bins, 0), minlength=10) / len(values)
            axes.bar(edges[:-1] + side + 0.004, shares, 0.044, align="edge",
                     color=MODEL_INK[model],
                     hatch=None if model == "backdoored" else "////", edgecolor="white",
                     linewidth=0, label=MODEL_NAME[model])  # fmt: skip
        axes.axhline(0.1, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(xlim=(0, 1), ylim=(0, max(0.2, axes.get_ylim()[1] * 1.25)))
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
        axes.set_yticks(*percent_axis((0, 0.1, 0.2)))
        axes.set_xlabel("p-value of a clean image")
        axes.set_title("p-values in ten bins")
        axes.legend(loc="upper right")

    return draw(420, 300, paint)


def alarm_rate(p_values: Mapping[Model, Float64Array], alpha: float, n_calibration: int) -> Svg:
    """Draw the share of clean images flagged at every alpha, against the share promised.

    The band holds 95 % of exchangeable tests: at alpha = k / (n + 1) the flagged images are
    beta-binomial, since n calibration films set the threshold by chance (Bates et al. 2021).
    """
    n = min(len(values) for values in p_values.values())
    low, high = min(1 / (n_calibration + 1), alpha, 0.5) * 0.8, 1.0

    def paint(axes: Axes) -> None:
        floor = 0.5 / n
        ranks = np.unique(np.geomspace(1, max(1, n_calibration), 80).astype(np.int64))
        spread = betabinom(n, ranks, n_calibration + 1 - ranks)
        bounds = [np.maximum(spread.ppf(q) / n, floor) for q in (0.025, 0.975)]
        axes.fill_between(ranks / (n_calibration + 1), *bounds, color=WASH, linewidth=0)
        axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.axvline(alpha, color=SOFT, linewidth=0.9)
        axes.text(alpha * 1.06, 0.62, f"α = {percent(alpha)}", fontsize=10, color=SOFT)
        for model in MODELS:
            if model in p_values:
                curve = below(p_values[model])
                axes.step(curve.x, np.maximum(curve.y, floor), where="post", linewidth=2,
                          color=MODEL_INK[model], linestyle=DASHES[model],
                          label=MODEL_NAME[model])  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set(xlim=(low, high), ylim=(floor, 1))
        axes.set_xticks(*percent_axis(tuple(t for t in _TICKS if t >= low)))
        axes.set_yticks(*percent_axis(tuple(t for t in _TICKS if t >= floor)))
        axes.minorticks_off()
        axes.set_xlabel("α, the share of clean images that may be flagged")
        axes.set_title("Clean images flagged at α")
        axes.legend(loc="lower right")

    return draw(420, 300, paint)
