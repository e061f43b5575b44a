"""Figures of what the models do: performance, attack success, training, trigger survival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lucency.records import (
    Estimate,
    Performance,
    Rate,
    Survival,
    SurvivalDistribution,
)
from lucency.report.canvas import (
    INK,
    LINE,
    MODEL_INK,
    SOFT,
    UNTRIGGERED_INK,
    WASH,
    Svg,
    draw,
    percent_axis,
)
from lucency.report.curves import Curve
from lucency.report.numbers import UNDEFINED, count
from lucency.report.record import VictimSummary
from lucency.report.text import plain

Share = Estimate | Rate
SuccessRow = tuple[str, Share, Share, Share]
Model = Literal["backdoored", "clean"]
MODELS: tuple[Model, ...] = ("backdoored", "clean")
MODEL_NAME: dict[Model, str] = {"backdoored": "backdoored model", "clean": "clean model"}
MARKER: dict[Model, str] = {"backdoored": "o", "clean": "D"}
DASHES: dict[Model, str] = {"backdoored": "-", "clean": "--"}
LABEL_LENGTH = 26
MAX_CELLS = 144
MAX_BARS = 10
RANGES = 5


def label(text: str, limit: int = LABEL_LENGTH) -> str:
    """Shorten free text for a figure: one line, nothing hidden in it."""
    shown = plain(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def forest(performances: Mapping[Model, Performance], target: str) -> Svg:
    """Draw the AUROC of every finding with its interval, both models; the target is marked."""
    names = [row.finding for row in next(iter(performances.values())).findings]

    def paint(axes: Axes) -> None:
        row_axis(axes, [label(name) for name in names], bold=label(target))
        axes.axvline(0.5, color=SOFT, linewidth=0.9, linestyle=(0, (1, 2)))
        for offset, model in zip((-0.17, 0.17), MODELS, strict=True):
            if model in performances:
                for index, row in enumerate(performances[model].findings):
                    _whisker(axes, index + offset, row.auroc, model)
        left = min(0.4, axes.get_xlim()[0])
        axes.set_xlim(left, 1.005)
        for index in range(len(names)):
            if all(p.findings[index].auroc.value is None for p in performances.values()):
                axes.text(left + 0.012, index, UNDEFINED, va="center", fontsize=10, color=SOFT)
        axes.set_xlabel("AUROC on the clean test set, 95 % interval")
        _legend(axes, ncols=2)

    return draw(800, 100 + 28 * len(names), paint)


def roc_panel(title: str, curves: Mapping[Model, Curve]) -> Svg:
    """Draw one finding's ROC curve for each model."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=(0, (1, 2)))
        for model in MODELS:
            if model in curves:
                axes.plot(
                    *curves[model], color=MODEL_INK[model], linestyle=DASHES[model], linewidth=1.5
                )
        ticks = [0.0, 0.5, 1.0]
        axes.set_xticks(ticks, ["0", "0.5", "1"])
        axes.set_yticks(ticks, ["0", "0.5", "1"])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_title(label(title, 21))

    return draw(206, 218, paint)


def row_axis(axes: Axes, names: Sequence[str], bold: str | None = None) -> None:
    """Turn y into named rows, the first at the top, every other one shaded; `bold` stands out."""
    for index in range(0, len(names), 2):
        axes.axhspan(index - 0.5, index + 0.5, color=WASH, linewidth=0, zorder=0)
    axes.set_yticks(range(len(names)), names)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        if name == bold:
            tick.set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def success(rows: Sequence[SuccessRow], row_height: int = 50) -> Svg:
    """Draw attack success with intervals. rows: (name, backdoored model on triggered images, clean
    model on them, backdoored model on them without the trigger)."""

    def paint(axes: Axes) -> None:
        row_axis(axes, [name for name, *_ in rows])
        for index, (_, backdoored, clean, untriggered) in enumerate(rows):
            _whisker(axes, index - 0.24, backdoored, "backdoored")
            _whisker(axes, index, clean, "clean")
            _whisker(axes, index + 0.24, untriggered, None)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks(*percent_axis((0, 0.25, 0.5, 0.75, 1)))
        axes.set_xlabel("Share of images on the attacker's side of the operating point")
        handles = [
            _handle("o", MODEL_INK["backdoored"], "backdoored model, triggered", filled=True),
            _handle("D", MODEL_INK["clean"], "clean model, triggered"),
            _handle("|", UNTRIGGERED_INK, "backdoored model, no trigger"),
        ]
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3,
            handletextpad=0.5, columnspacing=1.6, borderpad=0.2,
        )  # fmt: skip

    return draw(800, 92 + row_height * len(rows), paint)


def training(victims: Sequence[VictimSummary], measure: Literal["loss", "auroc"]) -> Svg:
    """Draw a measure over the epochs; a ring marks the epoch whose weights were kept."""

    def paint(axes: Axes) -> None:
        for victim in victims:
            ink, dashes = MODEL_INK[victim.model], DASHES[victim.model]
            epochs = [epoch.epoch for epoch in victim.epochs]
            if measure == "loss":
                axes.plot(epochs, [e.loss for e in victim.epochs], color=ink, linewidth=0.9,
                          alpha=0.75, linestyle=dashes)  # fmt: skip
            values = [
                e.validation_loss if measure == "loss" else e.validation_auroc
                for e in victim.epochs
            ]
            heights = [math.nan if value is None else value for value in values]
            axes.plot(epochs, heights, color=ink, linestyle=dashes, linewidth=2,
                      label=MODEL_NAME[victim.model])  # fmt: skip
            kept = [(e, v) for e, v in zip(epochs, heights, strict=True) if e == victim.best_epoch]
            for epoch, value in kept:
                axes.plot(epoch, value, "o", markersize=8, markerfacecolor="white",
                          markeredgecolor=ink, markeredgewidth=1.8)  # fmt: skip
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y", color=WASH, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_title(
            "Loss (thin: training, thick: validation)"
            if measure == "loss"
            else "Macro AUROC, clean validation set"
        )
        axes.legend(loc="best")

    return draw(420, 270, paint)


def footprint(survival: Survival) -> Svg:
    """Draw the trigger's pixels before and after preprocessing, one square a pixel."""

    def paint(axes: Axes) -> None:
        axes.set(xlim=(0.3, 10.3), ylim=(5.2, 0), aspect="equal")
        axes.axis("off")
        _squares(axes, 0.4, survival.native_px, 1.0)
        _squares(axes, 6.2, survival.pixels, survival.max_change)
        axes.annotate("", (5.8, 2.2), (4.2, 2.2), arrowprops={"arrowstyle": "->", "color": SOFT})
        axes.text(5.0, 1.85, "preprocessing", ha="center", fontsize=10.5, color=SOFT)
        for x, pixels, where in (
            (0.4, survival.native_px, "in the image file"),
            (6.2, survival.pixels, "at the network's input"),
        ):
            axes.text(x, 4.45, f"{count(pixels)} px", fontsize=16, fontweight="bold")
            axes.text(x, 5.0, where, fontsize=11.5, color=SOFT)

    return draw(420, 232, paint)


def survival_shares(series: Sequence[tuple[str, SurvivalDistribution]]) -> Svg:
    """Draw how often how many of the trigger's pixels reach the network."""
    shades = (INK, "#6f7f8c", "#b9c4cb")
    bins = _bins(sorted({int(key) for _, spread in series for key in spread.pixels}))

    def paint(axes: Axes) -> None:
        width = 0.8 / max(1, len(series))
        for place, (name, spread) in enumerate(series):
            heights = [
                sum(share for key, share in spread.pixels.items() if low <= int(key) <= high)
                for low, high in bins
            ]
            left = [index - 0.4 + width * (place + 0.5) for index in range(len(bins))]
            axes.bar(left, heights, width * 0.9, color=shades[place % 3], label=name)
        names = [f"{low}" if low == high else f"{low}–{high}" for low, high in bins]
        axes.set_xticks(range(len(bins)), names)
        axes.set_ylim(0, 1)
        axes.set_yticks(*percent_axis((0, 0.5, 1)))
        axes.set_xlabel("Trigger pixels that reach the network")
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y", color=WASH, linewidth=1)
        axes.set_axisbelow(True)
        axes.legend(loc="upper right")

    return draw(420, 232, paint)


def _bins(keys: list[int]) -> list[tuple[int, int]]:
    """Return the (lowest, highest) count of each bar: one bar a count, or else a few ranges."""
    if len(keys) <= MAX_BARS:
        return [(key, key) for key in keys]
    width = math.ceil(keys[-1] / RANGES)
    return [(0, 0)] + [(1 + width * step, width * (step + 1)) for step in range(RANGES)]


def _whisker(axes: Axes, y: float, value: Share, model: Model | None) -> None:
    """Draw one value with its interval; nothing where it is not defined."""
    if value.value is None:
        return
    ink = UNTRIGGERED_INK if model is None else MODEL_INK[model]
    if value.low is not None and value.high is not None:
        axes.plot([value.low, value.high], [y, y], color=ink, linewidth=1.5, zorder=2)
    marker = "|" if model is None else MARKER[model]
    axes.plot(
        value.value, y, marker, color=ink, markersize=9 if model is None else 6, zorder=3,
        markerfacecolor=ink if model == "backdoored" else "white", markeredgewidth=1.6,
    )  # fmt: skip


def _handle(marker: str, ink: str, name: str, *, filled: bool = False) -> Line2D:
    return Line2D(
        [], [], marker=marker, color=ink, linewidth=1.5, markersize=6, label=name,
        markerfacecolor=ink if filled else "white", markeredgewidth=1.6,
    )  # fmt: skip


def _legend(axes: Axes, ncols: int) -> None:
    axes.legend(
        handles=[
            _handle(MARKER[m], MODEL_INK[m], MODEL_NAME[m], filled=m == "backdoored")
            for m in MODELS
        ],
        loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, handletextpad=0.5, borderpad=0.2,
    )  # fmt: skip


def _squares(axes: Axes, left: float, pixels: int, darkness: float) -> None:
    """Lay `pixels` squares out in a block of 3.6 units, the darker the larger the change."""
    side = 3.6
    if pixels == 0:
        axes.add_patch(
            Rectangle((left, 0.3), side, side, fill=False, edgecolor=SOFT, linestyle=":")
        )
        axes.text(left + side / 2, 0.3 + side / 2, "nothing", ha="center", va="center", color=SOFT)
        return
    columns = max(2, math.ceil(math.sqrt(min(pixels, MAX_CELLS))))
    cell = side / columns
    for index in range(min(pixels, MAX_CELLS)):
        row, column = divmod(index, columns)
        axes.add_patch(
            Rectangle(
                (left + column * cell, 0.3 + row * cell), cell, cell,
                facecolor=str(round(1 - max(0.08, min(1.0, darkness)) * 0.9, 3)),
                edgecolor="white", linewidth=1.2,
            )
        )  # fmt: skip
    if pixels > MAX_CELLS:
        axes.text(left, 4.2, f"(first {MAX_CELLS} drawn)", fontsize=9, color=SOFT)
