"""Figures of a sweep: success and AUROC against what was varied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from lucency.records import Estimate
from lucency.report.canvas import (
    INK,
    LINE,
    SOFT,
    Svg,
    draw,
    percent_axis,
)
from lucency.report.figures import label, row_axis, success
from lucency.report.sweep_record import Axis, AxisValue, Point

MAX_ROWS, MAX_LINES, MAX_CELLS = 48, 8, 400
HALF = (470, 360)
"""Width and height of a figure that has a neighbour."""
INKS = ("#9a3412", "#2563a8", "#4d7c0f", "#7b4fa3", "#b45309", "#0f766e", "#9d174d", "#475569")
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "*")
SIZE = "attack.trigger.size_px"
AMOUNTS = ("attack.poison_rate", "attack.poison_count")


class Drawing(NamedTuple):
    """A figure with its words; note: what it leaves out."""

    title: str
    drawing: Svg
    caption: str
    note: str = ""


class Abscissa(NamedTuple):
    """What a figure is drawn against. varies: the axes of the grid that change it."""

    name: str
    words: str
    of: Callable[[Point], float | None]
    varies: tuple[str, ...]
    is_log: bool


ABSCISSAE = (
    Abscissa("rate", "Poison rate (poisoned ÷ all training films)", lambda p: p.poison_rate,
             AMOUNTS, is_log=True),
    Abscissa("count", "Poisoned training films", lambda p: p.n_poisoned, AMOUNTS, is_log=True),
    Abscissa("size", "Side of the trigger, native pixels", lambda p: _number(p.axes.get(SIZE)),
             (SIZE,), is_log=False),
    Abscissa("network", "Pixels of the network's input that the trigger changes",
             lambda p: p.network_px, (SIZE, "input.resize", "input.crop", "input.size"),
             is_log=False),
)  # fmt: skip


def figures(points: Sequence[Point], axes: Sequence[Axis]) -> list[tuple[Drawing, ...]]:
    """Every figure that these points allow, in rows of those that stand side by side."""
    drawn: list[tuple[Drawing, ...]] = [(_forest(points),)]
    for x in ABSCISSAE:
        if any(axis.name in x.varies for axis in axes):
            drawn.append(_against(x, points))
    heat = _heat(points, axes)
    return [row for row in (*drawn, (heat,) if heat else ()) if row]


def collateral(findings: pl.DataFrame) -> Drawing | None:
    """What triggered films with their true labels lose, finding by finding: a mark a run."""
    wide = (
        findings.filter((pl.col("set") == "TN") & pl.col("auroc").is_not_null())
        .pivot(on="model", index=["run", "finding", "is_target"], values="auroc")
    )  # fmt: skip
    if not {"clean", "backdoored"} <= set(wide.columns):
        return None
    wide = wide.with_columns((pl.col("backdoored") - pl.col("clean")).alias("change")).drop_nulls()
    names = [
        n for n in findings["finding"].unique(maintain_order=True) if n in set(wide["finding"])
    ]
    if not names:
        return None

    def paint(axes: Axes) -> None:
        row_axis(axes, [label(name) for name in names])
        axes.axvline(0, color=SOFT, linewidth=0.9, linestyle=(0, (1, 2)))
        for row, name in enumerate(names):
            here = wide.filter(pl.col("finding") == name)
            for is_target, ink in ((False, INKS[1]), (True, INKS[0])):
                changes = here.filter(pl.col("is_target") == is_target)["change"].to_numpy()
                axes.plot(
                    [*changes], [row] * len(changes), "|", color=ink, markersize=11, alpha=0.7
                )
        axes.set_xlabel("AUROC on triggered films with true labels, backdoored − clean model")

    return Drawing(
        "What the trigger does to every finding",
        draw(800, 80 + 26 * len(names), paint),
        "A mark a run: how much worse the backdoored model ranks triggered films by their true "
        "labels than the clean model does. Red: the run's target, which is meant to fall; blue: "
        "collateral. Findings that few films have scatter by chance.",
    )


def _forest(points: Sequence[Point]) -> Drawing:
    rows = [
        (label(point_name(p), 46), p.success, p.success_clean_model, p.untriggered)
        for p in points[:MAX_ROWS]
    ]
    note = f"The first {MAX_ROWS} of {len(points)}." if len(points) > MAX_ROWS else ""
    return Drawing(
        "Attack success at every point of the grid",
        success(rows, row_height=30),
        "At 95 % specificity on clean validation films, with 95 % intervals.",
        note,
    )


def _against(x: Abscissa, points: Sequence[Point]) -> tuple[Drawing, ...]:
    """Success, and AUROC, against x; a line for each combination of all else that was varied."""
    lines: dict[tuple[tuple[str, AxisValue], ...], list[tuple[float, Point]]] = {}
    for point in points:
        at = x.of(point)
        if at is not None:
            rest = tuple((k, v) for k, v in point.axes.items() if k not in x.varies)
            lines.setdefault(rest, []).append((at, point))
    lines = {rest: sorted(found, key=lambda f: f[0]) for rest, found in lines.items()}
    if not any(len({at for at, _ in found}) > 1 for found in lines.values()):
        return ()
    shown = dict(list(lines.items())[:MAX_LINES])
    note = f"The first {MAX_LINES} of {len(lines)} lines." if len(lines) > MAX_LINES else ""
    words = x.words[0].lower() + x.words[1:]
    return (
        Drawing(
            f"Attack success by {words}",
            draw(*HALF, lambda axes: _paint_lines(axes, x, shown, is_success=True)),
            "Filled: the backdoored model; hollow and dashed: the clean model on the same films. "
            "95 % intervals over seeds and patients.",
            note,
        ),
        Drawing(
            f"Clean performance by {words}",
            draw(*HALF, lambda axes: _paint_lines(axes, x, shown, is_success=False)),
            "Macro AUROC on clean films. Filled: the backdoored model; hollow and dashed: the "
            "clean model.",
            note,
        ),
    )  # fmt: skip


def _paint_lines(
    axes: Axes,
    x: Abscissa,
    lines: Mapping[tuple[tuple[str, AxisValue], ...], list[tuple[float, Point]]],
    *,
    is_success: bool,
) -> None:
    for (rest, found), ink, marker in zip(lines.items(), INKS, MARKERS, strict=False):
        places = [at for at, _ in found]
        ours = [p.success if is_success else p.auroc for _, p in found]
        theirs = [p.success_clean_model if is_success else p.auroc_clean_model for _, p in found]
        _line(axes, places, theirs, ink, marker, is_clean=True, words=None)
        words = _in_words(rest) or "backdoored model"
        _line(axes, places, ours, ink, marker, is_clean=False, words=label(words, 40))
    axes.set_xlabel(x.words)
    ticks = sorted({at for found in lines.values() for at, _ in found})
    if x.is_log:
        axes.set_xscale("log")
    if len(ticks) <= 8:
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
    is_rate = x.name == "rate"
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{100 * v:.3g} %" if is_rate else f"{v:,.4g}")
    )
    if is_success:
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks(*percent_axis((0, 0.25, 0.5, 0.75, 1)))
        axes.set_ylabel("Attack success")
    else:
        axes.set_ylabel("Macro AUROC, clean films")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    if len(lines) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=10.5)


def _line(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[Estimate],
    ink: str,
    marker: str,
    *,
    is_clean: bool,
    words: str | None,
) -> None:
    known = [(at, v, v.value) for at, v in zip(places, values, strict=True) if v.value is not None]
    axes.plot(
        [at for at, _, _ in known],
        [value for _, _, value in known],
        marker=marker,
        color=ink,
        markerfacecolor="white" if is_clean else ink,
        linestyle=(0, (3, 2)) if is_clean else "-",
        linewidth=1.0 if is_clean else 1.7,
        alpha=0.75 if is_clean else 1.0,
        label=words,
    )
    for at, v, _ in known:
        if v.low is not None and v.high is not None:
            axes.plot([at, at], [v.low, v.high], color=ink, linewidth=1.0, alpha=0.6)


def _heat(points: Sequence[Point], axes: Sequence[Axis]) -> Drawing | None:
    """Success by size and amount; where more was varied, the mean over it."""
    names = {axis.name: axis for axis in axes}
    amount = next((name for name in AMOUNTS if name in names), None)
    if SIZE not in names or amount is None:
        return None
    rows, columns = names[SIZE].values, names[amount].values
    if not 2 <= len(rows) * len(columns) <= MAX_CELLS:
        return None
    cells: dict[tuple[AxisValue, AxisValue], list[float]] = {}
    for point in points:
        if point.success.value is not None:
            key = (point.axes[SIZE], point.axes[amount])
            cells.setdefault(key, []).append(point.success.value)
    means = {key: sum(values) / len(values) for key, values in cells.items()}

    def paint(plot: Axes) -> None:
        grid = [[means.get((r, c), float("nan")) for c in columns] for r in rows]
        plot.imshow(grid, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                if (r, c) in means:
                    ink = "white" if means[r, c] > 0.6 else INK
                    plot.text(j, i, f"{means[r, c]:.0%}", ha="center", va="center", color=ink)
        is_rate = amount == AMOUNTS[0]
        plot.set_xticks(
            range(len(columns)),
            [f"{100 * float(c):g} %" if is_rate else f"{c}" for c in columns],
        )
        plot.set_yticks(range(len(rows)), [f"{r}" for r in rows])
        plot.set_xlabel("Poison rate" if is_rate else "Poisoned training films")
        plot.set_ylabel("Side, native pixels")
        for spine in plot.spines.values():
            spine.set_visible(False)
        plot.tick_params(length=0)

    others = [name for name in names if name not in (SIZE, amount)]
    return Drawing(
        "Attack success by size and amount",
        draw(max(640, 120 + 70 * len(columns)), 90 + 36 * len(rows), paint),
        "Darker = higher." + (f" Means over {', '.join(map(_short, others))}." if others else ""),
    )


def point_name(point: Point) -> str:
    """What was varied, in words."""
    return _in_words(point.axes.items()) or point.trigger


def _in_words(varied: Iterable[tuple[str, AxisValue]]) -> str:
    return ", ".join(_named(_short(key), value) for key, value in varied)


def _named(name: str, value: AxisValue) -> str:
    if name.endswith(" px"):
        return f"{name.removesuffix(' px')} {value} px"
    return f"{name} {value}".strip()


def _short(name: str) -> str:
    """The last part of a dotted key, as words; a case needs no name."""
    return "" if name == "case" else name.rpartition(".")[2].replace("_", " ")


def _number(value: AxisValue | None) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]
