"""What `lucency audit` writes: the typed content of `audit.json`. The page is drawn from it and
from `triggers.safetensors` alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from lucency.records import Box, Direction, Rate, Record, Rejected
from lucency.report.record import Verdict
from lucency.report.screen_record import ScreenedModel

SCHEMA: Literal["lucency/audit/1"] = "lucency/audit/1"

AuditVerdict = Literal["evidence", "stands-out", "no-evidence"]
PValue = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class FoundTrigger(Record):
    """The strongest trigger that the tests found for a finding in a direction.

    test: which found it. what: in words. mask_px: network pixels that it changes, mean over films.
    location: where at the network (`None` = the whole film); native: the same in the pixels of a
    reference film as stored. moved: how far it moves the finding's logit, in standard deviations of
    its clean logits, mean over the films that the finding can be moved on; obeyed, before: those of
    them past the logit that one clean film in twenty reaches, with the trigger and without.
    probabilities: of the finding on the films in the pictures, without and with it. shortcut: why
    it may be something that films have by nature (`None` = nothing was noticed). key: of its
    pictures in `triggers.safetensors`.
    """

    test: str
    what: str
    mask_px: float
    location: Box | None
    native: Box | None
    moved: float
    obeyed: Rate
    before: Rate
    probabilities: tuple[tuple[float, float], ...]
    shortcut: str | None
    key: str


class AuditedFinding(Record):
    """One finding in one direction. suspicion: its largest standardised score, larger = more
    suspicious; test, budget: that it is from. p_value: corrected for all findings, directions,
    budgets and tests. trigger: the strongest, kept for the most suspicious findings."""

    finding: str
    direction: Direction
    suspicion: float
    p_value: PValue
    test: str
    budget: str
    trigger: FoundTrigger | None = None


class AuditTest(Record):
    """One test. needs: what it had to have. statistic: its largest standardised score, of this
    finding and direction, searched within this budget; p_value: of this test alone. reason: why it
    was not made."""

    name: str
    needs: str
    statistic: float | None = None
    p_value: PValue | None = None
    finding: str | None = None
    direction: Direction | None = None
    budget: str | None = None
    forwards: Count = 0
    backwards: Count = 0
    seconds: float = 0.0
    reason: str | None = None


class AuditNull(Record):
    """What scores were compared with. n_models: clean reference models; 0 = the model's own other
    findings. comparisons: scores of which the largest is the statistic. critical: the statistic
    from which p ≤ α."""

    n_models: Count
    comparisons: Count
    critical: float


class AuditReport(Record):
    """The whole audit.

    verdict: "stands-out" where p ≤ α against the model's own other findings alone, which differ by
    nature: only clean reference models make it evidence. p_value: of the model. n_films: clean
    films that were used, one a patient; n_patients: as many, `None` where nobody said whose they
    are. findings: every finding in both directions, the most suspicious first. seconds: wall-clock
    time; forwards, backwards: images sent through the network.
    """

    schema_: Literal["lucency/audit/1"] = Field(default=SCHEMA, alias="schema")
    verdict: AuditVerdict
    p_value: PValue
    alpha: float
    statistic: float
    words: Verdict
    warnings: tuple[str, ...]
    model: ScreenedModel
    n_films: Count
    n_patients: Count | None
    rejected: tuple[Rejected, ...]
    null: AuditNull
    findings: tuple[AuditedFinding, ...]
    tests: tuple[AuditTest, ...]
    forwards: Count
    backwards: Count
    seconds: float
    settings: dict[str, JsonValue]
    command: str
    software: dict[str, str]
    digests: dict[str, str]
    device: str
    threads: int
    seed: int
