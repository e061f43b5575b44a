"""What a sweep found, in plain language, its limits first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucency.manifest import read_json
from lucency.records import Estimate
from lucency.report.record import Verdict
from lucency.report.sweep_figures import point_name
from lucency.report.sweep_record import Axis, Point, SweepReport

WORKS = 0.9
"""Attack success, at 95 % specificity, from which an attack is said to work."""
MANY = 12
"""Values of an axis that are counted, not listed, if there are more."""


def give_verdict(
    axes: Sequence[Axis], points: Sequence[Point], n_seeds: int, n_failed: int
) -> Verdict:
    """Headline, limits and sentences of a sweep."""
    limits = [
        "This measures chosen attacks on one way of training; it says nothing of attacks and "
        "networks that are not in the grid.",
        "Attack success is read at 95 % specificity on clean validation films, beside the clean "
        "model's on the same triggered films.",
    ]
    if n_seeds == 1:
        limits.append(
            "One seed: intervals are over patients alone, and another training may come out "
            "otherwise; give several seeds."
        )
    if n_failed:
        limits.append(f"{n_failed} runs failed and are left out; they are named below.")
    return Verdict(
        headline=_headline(points),
        limits=tuple(limits),
        sentences=(_grid(axes, points, n_seeds), _weakest(points), _cost(points)),
    )


def describe_sweep(folder: Path) -> str:
    """The verdict and a table of the points, as text for a terminal."""
    report = read_json(folder / "report.json", SweepReport)
    verdict = report.verdict
    width = max(len(point_name(point)) for point in report.points)
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in verdict.limits), ""]
    lines += [verdict.headline, *verdict.sentences, ""]
    heading = ("poisoned", "success", "clean model", "AUROC", "difference")
    lines.append(" " * width + "".join(f"{name:>12}" for name in heading))
    for point in report.points:
        numbers = (
            f"{point.n_poisoned:,.0f}",
            _number(point.success, "{:.1%}"),
            _number(point.success_clean_model, "{:.1%}"),
            _number(point.auroc, "{:.3f}"),
            _number(point.difference, "{:+.3f}"),
        )
        lines.append(f"{point_name(point):<{width}}" + "".join(f"{n:>12}" for n in numbers))
    lines += [f"failed: {failed.image}: {failed.reason}" for failed in report.failed]
    return "\n".join(lines)


def _headline(points: Sequence[Point]) -> str:
    n_works = sum(_works(point) for point in points)
    return (
        f"The attack works at {n_works} of {len(points)} points of the grid (success of at least "
        f"{WORKS:.0%}, and at most half of that on the clean model)."
    )


def _grid(axes: Sequence[Axis], points: Sequence[Point], n_seeds: int) -> str:
    varied = "; ".join(
        f"{axis.name}: {', '.join(map(str, axis.values))}"
        if len(axis.values) <= MANY
        else f"{axis.name}, {len(axis.values)} of them"
        for axis in axes
    )
    seeds = f"{n_seeds} seed{'' if n_seeds == 1 else 's'}"
    return f"{len(points)} points with {seeds} each. {f'Varied: {varied}.' if varied else ''}"


def _weakest(points: Sequence[Point]) -> str:
    working = [point for point in points if _works(point)]
    if not working:
        return "No point of the grid was enough."
    least = min(working, key=lambda point: point.n_poisoned)
    return (
        f"The fewest poisoned films that were enough are {least.n_poisoned:,.0f} "
        f"({least.poison_rate:.2%} of the training films; {point_name(least)}): success "
        f"{_number(least.success, '{:.1%}')}, on the clean model "
        f"{_number(least.success_clean_model, '{:.1%}')}."
    )


def _cost(points: Sequence[Point]) -> str:
    known = [p for p in points if p.difference.value is not None]
    if not known:
        return "What the backdoors cost in clean AUROC is not defined."
    worst = min(known, key=lambda p: p.difference.value or 0.0)
    return (
        "The largest cost in macro AUROC on clean films, backdoored minus clean model, is "
        f"{_number(worst.difference, '{:+.3f}')} ({point_name(worst)})."
    )


def _works(point: Point) -> bool:
    success, clean = point.success.value, point.success_clean_model.value
    return success is not None and success >= WORKS and clean is not None and clean <= WORKS / 2


def _number(value: Estimate, words: str) -> str:
    return "not defined" if value.value is None else words.format(value.value)
