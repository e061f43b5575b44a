"""A scan in sentences: limits, verdict, and the answer for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lucency.config_faults import shown
from lucency.report.numbers import count, p_number, percent
from lucency.report.record import Verdict
from lucency.report.scan_record import Copies, ScanReport, ScanVerdict, SharedThing
from lucency.runs import read_json

LONGEST = 4096
SHOWN = 5

LIMITS = (
    "Research use only: not a medical device.",
    "No evidence is no proof of absence. Without a model, only specks of at most 8 pixels that "
    "come back are looked for, and films that are there twice. Patterns over the whole film, "
    "warps, single pixels at random places and edits of labels alone are out of sight.",
    "Nothing says that a recurrence was planted. What looks planted is that more films have it "
    "than such things come back by nature, and that nearly all of them have the label; a device or "
    "a marker of one ward can do the same. Look at the montage.",
    "A trigger that clears a finding leaves films that lack it, as most do: no label goes with it, "
    "and it is noticed by how many films have it alone.",
)


def kind_of(things: Sequence[SharedThing]) -> ScanVerdict:
    """The verdict in one word. things: the most suspicious first."""
    if not things:
        return "no-evidence"
    kind = things[0].kind
    return "shortcuts" if kind == "shortcut" else kind


def give_verdict(
    things: Sequence[SharedThing], n_things: int, n_flagged: int, copies: Copies, alpha: float
) -> Verdict:
    """things: the most suspicious first."""
    kind = kind_of(things)
    if kind == "planted":
        headline = (
            f"{count(n_flagged)} films look poisoned: {_what(things[0])}, q = "
            f"{p_number(things[0].q_value)}."
        )
    elif kind == "unexplained":
        headline = (
            f"{count(things[0].n_films)} films have something in common that nothing explains, a "
            f"trigger that clears a finding or the mark of a device: {things[0].what}, q = "
            f"{p_number(things[0].q_value)}. {_whether(n_flagged)}"
        )
    elif kind == "shortcuts":
        headline = (
            f"No evidence of poison at q ≤ {percent(alpha)}, but shortcuts that a network can "
            f"learn: {_what(things[0])}, q = {p_number(things[0].q_value)}."
        )
    else:
        headline = (
            f"No evidence of poison at q ≤ {percent(alpha)}: no label goes with specks that "
            "several films share, and none is on more films than such things are by nature."
        )
    planted, unexplained = (
        sum(thing.kind == kind for thing in things) for kind in ("planted", "unexplained")
    )
    return Verdict(
        headline=headline,
        limits=LIMITS,
        sentences=(*_more(planted, unexplained, n_things), *_copies(copies)),
    )


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
    lines += ["", f"Report: {folder / 'report.html'}"]
    return "\n".join(shown(line, LONGEST) for line in lines)
