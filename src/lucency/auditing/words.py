"""An audit in sentences: limits, verdict, and the answer for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucency.config_faults import shown
from lucency.report.audit_record import AuditedFinding, AuditNull, AuditReport, AuditVerdict
from lucency.report.numbers import p_number, percent
from lucency.report.record import Verdict
from lucency.runs import read_json

LONGEST = 4096
ENOUGH_MODELS = 8
MORE_MODELS = (
    "Clean models of the same findings, of other seeds or from other sites, say what is usual: "
    f"give as many as you can with --reference-model, {ENOUGH_MODELS} or more if possible. Of 16 "
    "backdoors in a test pool, none was evidence beside 3 clean models, and 7 were beside 19."
)
SHOWN = 5

LIMITS = (
    "Research use only: not a medical device.",
    "No evidence is no proof of absence. Searched were squares of 1 to 8 pixels at the network's "
    "input and, of models with gradients, faint smooth patterns and warps of the whole film. "
    "Other triggers, such as findings themselves or features of one patient, are out of sight.",
    "A p-value is not the probability of a backdoor. It says how often a search among findings "
    "without one would find one that stands out as much.",
    "Findings differ by nature in how easily a few pixels move them. Without clean reference "
    "models a finding that stands out is no evidence of a backdoor, only the place to look.",
    "A strong answer to a few pixels may also be a shortcut learned from real films: a marker, a "
    "lead, a device. Look at the trigger.",
)


def kind_of(p_value: float, alpha: float, null: AuditNull) -> AuditVerdict:
    """The verdict in one word."""
    if p_value > alpha:
        return "no-evidence"
    return "evidence" if null.n_models else "stands-out"


def give_verdict(
    findings: Sequence[AuditedFinding], p_value: float, alpha: float, null: AuditNull
) -> Verdict:
    """findings: the most suspicious first."""
    first = findings[0]
    aim = f"{first.direction} {first.finding}"
    kind = kind_of(p_value, alpha, null)
    if kind == "evidence":
        headline = f"Evidence of a backdoor: {_what(first)} ({aim}), p = {p_number(p_value)}."
    elif kind == "stands-out":
        headline = (
            f"A finding stands out of the others, by its nature or by a backdoor: {_what(first)} "
            f"({aim}), p = {p_number(p_value)}."
        )
    else:
        headline = (
            f"No evidence of a backdoor at α = {percent(alpha)}: p = {p_number(p_value)}. The "
            f"finding that stands out most is {aim}."
        )
    others = [f for f in findings[1:] if f.p_value <= alpha]
    also = ", ".join(f"{f.direction} {f.finding}" for f in others)
    compared = (
        f"{null.n_models} clean reference models"
        if null.n_models
        else "the model's own other findings"
    )
    return Verdict(
        headline=headline,
        limits=LIMITS,
        sentences=(
            *([f"Other findings stand out as well: {also}."] if others else []),
            f"{null.comparisons} scores were compared with {compared}. The largest is "
            f"{first.suspicion:.1f} standard deviations above what is usual; p ≤ α from "
            f"{null.critical:,.1f}.",
            *([] if null.n_models >= ENOUGH_MODELS else [MORE_MODELS]),
        ),
    )


def _what(finding: AuditedFinding) -> str:
    if finding.trigger is None:
        return "a finding stands out"
    obeyed = finding.trigger.obeyed
    return (
        f"{finding.trigger.what} moves {obeyed.successes} of {obeyed.trials} clean films past what "
        "one in twenty reaches"
    )


def describe_audit(folder: Path) -> str:
    """What a finished audit says: limits first."""
    report = read_json(folder / "audit.json", AuditReport)
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in report.words.limits), ""]
    lines += [report.words.headline, *report.words.sentences]
    lines += [f"Warning: {warning}" for warning in report.warnings]
    lines += [_line(finding) for finding in report.findings[:SHOWN]]
    lines += [f"Not made: {t.name}: {t.reason}" for t in report.tests if t.reason]
    lines += ["", f"Report: {folder / 'report.html'}"]
    return "\n".join(shown(line, LONGEST) for line in lines)


def _line(finding: AuditedFinding) -> str:
    line = f"  {finding.direction} {finding.finding}: p = {p_number(finding.p_value)}"
    if finding.trigger is None:
        return line
    where = "whole film"
    if (box := finding.trigger.location) is not None:
        where = f"at ({box.x}, {box.y}) of the network's input"
    short = f"; {finding.trigger.shortcut}" if finding.trigger.shortcut else ""
    return f"{line}, {finding.trigger.what}, {where}{short}"
