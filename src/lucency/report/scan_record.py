"""What `lucency scan` writes: the typed content of `scan.json` and of a line of `scan.jsonl`. The
page is drawn from `scan.json` and `montage.safetensors` alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from lucency.records import Box, Direction, Estimate, Rate, Record, Rejected
from lucency.report.record import Verdict
from lucency.report.screen_record import FileName

SCHEMA: Literal["lucency/scan/1"] = "lucency/scan/1"

ScanVerdict = Literal[
    "planted", "edited-labels", "unexplained", "odd-labels", "shortcuts", "no-evidence"
]
Kind = Literal["planted", "unexplained", "shortcut"]
LabelKind = Literal["edited", "odd"]
Probability = Annotated[float, Field(ge=0, le=1)]
PValue = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class OddLabel(Record):
    """A label of a film, and its probability as the film's other labels say, learned on other
    patients; small = suspicious."""

    finding: str
    value: Literal[0, 1]
    probability: Probability


class ScannedImage(Record):
    """One image: a line of `scan.jsonl`, in the order of the data set.

    A rejected image has a reason and nothing else. suspicion: −log₁₀ of its p-value, larger = more
    suspicious. p_value: the smallest of the recurrences that it is part of; q_value: theirs,
    corrected for all that were looked at. flagged: it is part of one that looks planted, or,
    if that was asked for, that nothing explains; or it has a label that looks edited. evidence: in
    words. label_suspicion: −log₁₀ of the smallest p-value of a pattern of findings that it has with
    a label; larger = more suspicious. label: the one that is least likely.
    """

    image: FileName
    status: Literal["ok", "rejected"]
    reason: FileName | None = None
    suspicion: float | None = None
    p_value: PValue | None = None
    q_value: Probability | None = None
    flagged: bool | None = None
    evidence: tuple[str, ...] = ()
    label_suspicion: float | None = None
    label: OddLabel | None = None


class SharedThing(Record):
    """Something that several films share, and a label that goes with it.

    kind: "planted" where more films have it than things come back by nature, and nearly all of
    these have the label, as an attacker's do; "unexplained" where more films have it, and no label
    goes with it: a trigger that clears a finding, or the mark of a device; "shortcut" where it
    comes back as things do, and a label goes with it: a network can learn it all the same. what: in
    words. location: where on every one of them (`None` = anywhere), pixels as stored. with_label:
    of these films, those that have the label of the direction (the finding, or its absence), where
    it is known; others: of all other films. p_count: that things of its sort come back as often by
    nature; p_label: of as many with the label, or more, if the two had nothing to do with each
    other, a patient counting once; p_value: of both together (of a shortcut 1); q_value: corrected
    for all that was looked at (of a shortcut that of its label). images: some of them. key: of its
    pictures in `montage.safetensors`.
    """

    kind: Kind
    what: str
    location: Box | None
    finding: str
    direction: Direction
    n_films: Count
    n_patients: Count
    with_label: Rate
    others: Rate
    p_count: PValue
    p_label: PValue
    p_value: PValue
    q_value: Probability
    images: tuple[FileName, ...]
    key: str


class OddLabels(Record):
    """Films that have some findings, and a label that does not fit them.

    kind: "edited" where nearly all of these films have it against what is expected; "odd" where
    too many have it, and it is not known which. present: findings that they have; finding,
    direction: the label, "set" = the finding, "clear" = its absence. n_patients: who have the
    findings, a patient counting once for each set of labels; n_with: of them with the finding;
    expected: as many as their other labels say. n_films: with the findings and the label; share: of
    these beyond what is expected, with a 95 % interval. images: some of them.
    """

    kind: LabelKind
    present: tuple[str, ...]
    finding: str
    direction: Direction
    n_patients: Count
    n_with: Count
    expected: float
    n_films: Count
    share: Probability
    share_low: Probability
    share_high: Probability
    p_value: PValue
    q_value: Probability
    images: tuple[FileName, ...]


class Conflict(Record):
    """Copies of one film with different labels. findings: those in which they differ.
    differing: pixels that differ between the first two, and where they are (`None` = they are not
    of one size, or could not be read)."""

    images: tuple[FileName, ...]
    findings: tuple[str, ...]
    differing: Count | None = None
    location: Box | None = None


class Copies(Record):
    """Films that are there more than once. n_groups: of copies of one film; n_films: in them;
    across_patients: groups of films of more than one patient; across_splits: of more than one
    split. n_conflicts: groups with different labels; conflicts: the first of them."""

    n_groups: Count
    n_films: Count
    across_patients: Count
    across_splits: Count
    n_conflicts: Count
    conflicts: tuple[Conflict, ...]


class ScanTest(Record):
    """One test: what it looked at, and how many things it compared; reason: why it was not made."""

    name: str
    looked_at: str
    comparisons: Count = 0
    seconds: float = 0.0
    reason: str | None = None


class ScannedData(Record):
    """The data set. n_films: those that could be read."""

    name: str
    source: str
    findings: tuple[str, ...]
    n_films: Count
    n_patients: Count
    n_positive: tuple[Count, ...]
    notes: tuple[str, ...]


class ScanReport(Record):
    """The whole scan.

    verdict: the most suspicious kind of what films share. poison_rate: share of the films that are
    part of what looks planted, less those that would have the label by chance; what nothing
    explains makes the interval longer. It counts what the tests can see. things: what was shared,
    the most significant first; n_things: how many there are. labels: those that do not fit the
    other labels.
    """

    schema_: Literal["lucency/scan/1"] = Field(default=SCHEMA, alias="schema")
    verdict: ScanVerdict
    words: Verdict
    warnings: tuple[str, ...]
    alpha: float
    data: ScannedData
    n_flagged: Count
    poison_rate: Estimate
    things: tuple[SharedThing, ...]
    n_things: Count
    labels: tuple[OddLabels, ...]
    copies: Copies
    tests: tuple[ScanTest, ...]
    rejected: tuple[Rejected, ...]
    seconds: float
    settings: dict[str, JsonValue]
    command: str
    software: dict[str, str]
    digests: dict[str, str]
    threads: int
    seed: int
