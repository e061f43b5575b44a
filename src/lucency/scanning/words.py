"""A scan in sentences: limits, verdict, and the answer for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucency.config_faults import shown
from lucency.report.numbers import count, p_number, percent
from lucency.report.record import Verdict
from lucency.report.scan_record import Copies, OddLabels, ScanReport, ScanVerdict, SharedThing
from lucency.runs import read_json

LONGEST = 4096
SHOWN = 5

LIMITS = (
    "Research use only: not a medical device.",
    "No evidence is no proof of absence. Without a model, only specks of at most 8 pixels that "
    "come back are looked for, films that are there twice, and labels that go against the others. "
    "Patterns over the whole film, warps, single pixels at random places and labels edited at "
    "random are out of sight.",
    "Nothing says that a recurrence was planted. What looks planted is that more films have it "
    "than such things come back by nature, and that nearly all of them have the label; a device or "
    "a marker of one ward can do the same. Look at the montage.",
    "A trigger that clears a finding leaves films that lack it, as most do: no label goes with it, "
    "and it is noticed by how many films have it alone.",
    "Labels are compared with each other, not with films: what an annotator does in a habit of his "
    "own looks as an edit does.",
)


def kind_of(things: Sequence[SharedThing], odd: Sequence[OddLabels]) -> ScanVerdict:
    """The verdict in one word. things, odd: the most suspicious first."""
    kinds = {thing.kind for thing in things}
    label_kinds = {labels.kind for labels in odd}
    if "planted" in kinds:
        return "planted"
    if "edited" in label_kinds:
        return "edited-labels"
    if "unexplained" in kinds:
        return "unexplained"
    if "odd" in label_kinds:
        return "odd-labels"
    return "shortcuts" if kinds else "no-evidence"


def give_verdict(
    things: Sequence[SharedThing],
    n_things: int,
    odd: Sequence[OddLabels],
    n_flagged: int,
    copies: Copies,
    alpha: float,
) -> Verdict:
    """things, odd: the most suspicious first."""
    kind = kind_of(things, odd)
    edited = [labels for labels in odd if labels.kind == "edited"] or odd
    if kind == "planted":
        headline = (
            f"{count(n_flagged)} films look poisoned: {_what(things[0])}, q = "
            f"{p_number(things[0].q_value)}."
        )
    elif kind == "edited-labels":
        headline = f"{count(n_flagged)} films have labels that look edited: {_labels(edited[0])}."
    elif kind == "unexplained":
        headline = (
            f"{count(things[0].n_films)} films have something in common that nothing explains, a "
            f"trigger that clears a finding or the mark of a device: {things[0].what}, q = "
            f"{p_number(things[0].q_value)}. {_whether(n_flagged)}"
        )
    elif kind == "odd-labels":
        headline = (
            f"Labels that do not fit the others, though it is not known which of them were edited: "
            f"{_labels(edited[0])}. {_whether(n_flagged)}"
        )
    elif kind == "shortcuts":
        headline = (
            f"No evidence of poison at q ≤ {percent(alpha)}, but shortcuts that a network can "
            f"learn: {_what(things[0])}, q = {p_number(things[0].q_value)}."
        )
    else:
        headline = (
            f"No evidence of poison at q ≤ {percent(alpha)}: no label goes with specks that "
            "several films share, none is on more films than such things are by nature, and no "
            "pattern of labels is out of the ordinary."
        )
    planted, unexplained = (
        sum(thing.kind == kind for thing in things) for kind in ("planted", "unexplained")
    )
    told = 1 if kind in ("edited-labels", "odd-labels") else 0
    return Verdict(
        headline=headline,
        limits=LIMITS,
        sentences=(
            *_more(planted, unexplained, n_things),
            *(f"Labels: {_labels(labels)}." for labels in edited[told:SHOWN]),
            *_copies(copies),
        ),
    )


def _labels(labels: OddLabels) -> str:
    """In words, with the numbers."""
    has = "have" if labels.direction == "set" else "lack"
    seen, expected = labels.n_with, labels.expected
    if labels.direction == "clear":
        seen, expected = labels.n_patients - seen, labels.n_patients - expected
    return (
        f"of {count(labels.n_patients)} patients with {_listed(labels.present)}, {count(seen)} "
        f"{has} {labels.finding}, where {count(round(expected))} are expected, q = "
        f"{p_number(labels.q_value)}"
    )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _what(thing: SharedThing) -> str:
    label = thing.with_label
    aim = thing.finding if thing.direction == "set" else f"no {thing.finding}"
    return (
        f"of {count(thing.n_films)} films with {thing.what}, {count(label.successes)} of "
        f"{count(label.trials)} are labelled {aim}"
    )


def _whether(n_flagged: int) -> str:
    if n_flagged:
        return "They are flagged, as was asked for."
    return "They are not flagged: look at them, and flag them with --unexplained."


def _more(planted: int, unexplained: int, n_things: int) -> list[str]:
    if n_things < 2:
        return []
    return [
        f"In all, films share {count(n_things)} things that a label goes with or that nothing "
        f"explains: {count(planted)} look planted, {count(unexplained)} are unexplained, and the "
        "others are shortcuts."
    ]


def _copies(copies: Copies) -> list[str]:
    if not copies.n_groups:
        return []
    return [
        f"{count(copies.n_films)} films are copies of one another, {count(copies.n_groups)} films "
        f"in more than one row; of these {count(copies.n_conflicts)} have different labels, and "
        f"{count(copies.across_splits)} are in more than one split."
    ]


def describe_scan(folder: Path) -> str:
    """What a finished scan says: limits first."""
    report = read_json(folder / "scan.json", ScanReport)
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in report.words.limits), ""]
    lines += [report.words.headline, *report.words.sentences]
    lines += [f"Warning: {warning}" for warning in report.warnings]
    lines += [
        f"  {thing.kind}: {_what(thing)}, q = {p_number(thing.q_value)}"
        for thing in report.things[:SHOWN]
    ]
    lines += [f"  {odd.kind} labels: {_labels(odd)}" for odd in report.labels[:SHOWN]]
    lines += ["", f"Report: {folder / 'report.html'}"]
    return "\n".join(shown(line, LONGEST) for line in lines)
