"""What a screening says in plain language. Every sentence is made from stored values.

It never calls an image or a model free of backdoors: it says what was found, beside what clean
images alone would give, and what the tests cannot see.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from lucency.report.chance import Group, chance, positive_predictive_value
from lucency.report.numbers import count, p_number, percent
from lucency.report.record import Verdict
from lucency.report.screen_record import Power, ScreenReport

RARE = 0.001


@dataclass(frozen=True)
class Batch:
    """What the sentences need to know of the lines.

    groups: how many images were read against how many clean films. n_local, n_whole: flagged
    images whose evidence is a small region, or spread over the image. suspected: "set X" or
    "clear X" -> flagged images. n_pasted, n_keys: flagged regions that were pasted on clean films,
    and those that act as a key there.
    """

    groups: tuple[Group, ...]
    n_local: int
    n_whole: int
    suspected: Counter[str]
    n_pasted: int
    n_keys: int


def give_verdict(report: ScreenReport, batch: Batch) -> Verdict:
    """Headline, limits and sentences of one batch."""
    return Verdict(
        headline=_headline(report),
        limits=report.limits,
        sentences=_sentences(report, batch) if report.counts.screened else (),
    )


def reachable(report: ScreenReport) -> bool:
    """Whether any p-value of this reference set is small enough for a flag."""
    return report.reference.min_p <= report.alpha


def warnings(report: ScreenReport) -> tuple[str, ...]:
    """Return all that makes the p-values weaker than they look."""
    found, alpha, shift = [], report.alpha, report.shift
    films = math.ceil(1 / alpha - 1e-9) - 1 if alpha else 0
    needed = f"give at least {count(films)} calibration films" if alpha else "give a larger α"
    if not reachable(report):
        found.append(
            f"With this reference set no image can be flagged at α = {percent(alpha)}: the "
            f"smallest possible p is {p_number(report.reference.min_p)}; {needed}."
        )
    for view, n in report.reference.by_view.items() if reachable(report) else ():
        if 1 / (n + 1) > alpha:
            found.append(
                f"No image of view {view} can be flagged at α = {percent(alpha)}: with {count(n)} "
                f"calibration films the smallest possible p is {p_number(1 / (n + 1))}; {needed}."
            )
    if shift.shifted:
        found.append(
            shift.sentence
            or "The images look like films of another kind than the reference set; "
            "their p-values are not exact."
        )
    return (*found, *report.reference.warnings, *report.model.warnings)


def by_chance(report: ScreenReport, batch: Batch) -> str | None:
    """Say how often clean images alone would be flagged as often; nothing without a flag."""
    flagged = report.counts.flagged
    share = chance(flagged, batch.groups, report.alpha) if flagged else None
    if share is None:
        return None
    often = f"in fewer than {percent(RARE)}" if share < RARE else f"in {percent(share)}"
    like = "batches of clean films like the reference set"
    return f"{often} of {like}, {count(flagged)} or more would be flagged"


def expected(value: float) -> str:
    """Write an expected count: one decimal, below 1 two significant digits.

    >>> expected(1.2), expected(0.012), expected(0.0), expected(1234.5)
    ('1.2', '0.012', '0', '1,234.5')
    """
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def images(n: int) -> str:
    """Write a number of images."""
    return f"{count(n)} image{'' if n == 1 else 's'}"


def _headline(report: ScreenReport) -> str:
    counts = report.counts
    if counts.screened == 0:
        if counts.rejected == 0:
            return "Nothing was screened: no image was given."
        files = "the only file" if counts.rejected == 1 else f"all {count(counts.rejected)} files"
        return f"Nothing was screened: {files} had to be rejected."
    if not reachable(report):
        return (
            f"No image could be flagged at α = {percent(report.alpha)}: the reference set is too "
            f"small for these {images(counts.screened)}."
        )
    were = "was" if counts.flagged <= 1 else "were"
    flagged = count(counts.flagged) if counts.flagged else "None"
    return (
        f"{flagged} of {images(counts.screened)} {were} flagged at α = {percent(report.alpha)}; "
        f"about {expected(counts.expected_false_alarms)} false alarms are expected if all are "
        "clean."
    )


def _sentences(report: ScreenReport, batch: Batch) -> tuple[str, ...]:
    counts = report.counts
    said = []
    if counts.flagged == 0 and reachable(report):
        said.append(
            "These tests found no evidence of a trigger in these images. That does not say that "
            "the images, or the model, carry none: the limits name what the tests cannot see."
        )
    often = by_chance(report, batch)
    if often:
        said.append(f"{often[0].upper()}{often[1:]}.")
    said.append(_discoveries(report))
    if counts.flagged:
        said += _evidence(batch)
    if report.power is not None and reachable(report):
        said.append(_worth(report, report.power))
    return tuple(said)


def _discoveries(report: ScreenReport) -> str:
    counts = report.counts
    at = f"At a false discovery rate of {percent(counts.fdr)} over the batch"
    if counts.discoveries:
        remain = "remains" if counts.discoveries == 1 else "remain"
        return f"{at}, {images(counts.discoveries)} {remain}."
    needed = math.ceil(report.reference.min_p * counts.screened / counts.fdr) if counts.fdr else 0
    power = (
        f"; with this reference set, at least {count(needed)} images would have to reach the "
        f"smallest possible p, {p_number(report.reference.min_p)}"
        if needed > 1
        else ""
    )
    return f"{at}, no image remains{power}."


def _evidence(batch: Batch) -> list[str]:
    said = []
    parts = [
        f"{words} on {images(n)}"
        for n, words in (
            (batch.n_local, "a small region carries the evidence"),
            (batch.n_whole, "the evidence is spread over the whole image"),
        )
        if n
    ]
    if parts:
        text = "; ".join(parts)
        said.append(f"Of the flagged: {text}.")
    if batch.suspected:
        (aim, n), flagged = batch.suspected.most_common(1)[0], batch.suspected.total()
        said.append(f"Suspected most often: {aim} ({count(n)} of {count(flagged)}).")
    if batch.n_pasted:
        acts = "acts" if batch.n_keys == 1 else "act"
        said.append(
            f"Of {count(batch.n_pasted)} flagged region{'' if batch.n_pasted == 1 else 's'} pasted "
            f"on clean films, {count(batch.n_keys)} {acts} as a key there, as a trigger does."
        )
    return said


def _worth(report: ScreenReport, power: Power) -> str:
    value = positive_predictive_value(power, report.alpha)
    if value is None:
        return "What a flag is worth is not defined: neither triggered nor clean images raise one."
    return (
        f"If {percent(power.prior)} of images are triggered and the tests find "
        f"{percent(power.tpr)} of them ({power.source}), {percent(value)} of flagged images are "
        "triggered; the others are false alarms."
    )
