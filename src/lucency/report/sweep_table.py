"""The points of a sweep as a table in Markdown, to paste into a document."""

from __future__ import annotations

from lucency.records import Estimate
from lucency.report.numbers import UNDEFINED, difference, interval, percent, share
from lucency.report.sweep_figures import point_name
from lucency.report.sweep_record import Point, SweepReport

HEADER = (
    "point",
    "poisoned films",
    "pixels at the network",
    "attack success",
    "clean model, same films",
    "macro AUROC, clean films",
    "minus the clean model's",
    "PSNR native, network (dB)",
    "SSIM native, network",
)


def as_markdown(report: SweepReport) -> str:
    """A row a point, what they are in words above, and what they were made with below."""
    n_seeds = len(report.seeds)
    seeds = ", ".join(map(str, report.seeds))
    rows = [HEADER, ("---", *("--:",) * (len(HEADER) - 1)), *map(_row, report.points)]
    versions = {n: v for n, v in report.software.items() if n != "platform"}
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        (
            f"## {report.name}",
            "",
            f"Means over {n_seeds} seed{'' if n_seeds == 1 else 's'} with 95 % intervals; attack "
            "success at 95 % specificity on clean validation films.",
            "",
            *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
            "",
            *(f"- Failed: {run.image}: {run.reason}" for run in report.failed),
            f"- `{report.command}`; seeds {seeds}; {report.device}, {report.threads} thread a run; "
            f"{software}",
            "",
        )
    )


def _row(point: Point) -> tuple[str, ...]:
    return (
        point_name(point),
        f"{point.n_poisoned:,.0f} ({percent(point.poison_rate)})",
        _number(point.network_px, "{:,.1f}"),
        _share(point.success),
        _share(point.success_clean_model),
        _share(point.auroc),
        UNDEFINED if point.difference.value is None else difference(point.difference),
        _pair(point.psnr_native_db, point.psnr_network_db, "{:.1f}"),
        _pair(point.ssim_native, point.ssim_network, "{:.3f}"),
    )


def _share(value: Estimate) -> str:
    if value.value is None:
        return UNDEFINED
    return f"{share(value.value, 3)} {interval(value.low, value.high) or ''}".strip()


def _pair(native: float | None, network: float | None, words: str) -> str:
    return f"{_number(native, words)}, {_number(network, words)}"


def _number(value: float | None, words: str) -> str:
    return "–" if value is None else words.format(value)
