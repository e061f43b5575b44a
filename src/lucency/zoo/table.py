"""A pool of models as a table to paste."""

from __future__ import annotations

from lucency.report.numbers import estimate, rate
from lucency.zoo.record import Member, ZooReport

HEAD = (
    "| model | network | pixels there | does | attack success | clean twin | macro AUROC |",
    "| --- | --- | --: | --- | --: | --: | --: |",
)


def as_markdown(report: ZooReport) -> str:
    """A row a model."""
    rows = [_row(member) for member in report.members]
    return "\n".join([f"## {report.name}", "", *HEAD, *rows, "", _source(report), ""])


def _row(member: Member) -> str:
    network = member.network
    auroc = estimate(member.macro_auroc)
    planted = member.planted
    if planted is None:
        return f"| {member.name} | {network} | – | nothing | – | – | {auroc} |"
    pixels = "–" if planted.network_px is None else f"{planted.network_px:,.1f}"
    does = f"{planted.direction} {planted.finding}"
    success, twin = rate(planted.success), rate(planted.success_clean_model)
    return f"| {member.name} | {network} | {pixels} | {does} | {success} | {twin} | {auroc} |"


def _source(report: ZooReport) -> str:
    software = ", ".join(f"{name} {version}" for name, version in report.software.items())
    return f"- `{report.command}`; {report.device}; {software}"
