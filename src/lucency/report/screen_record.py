"""What `lucency screen` writes: a line an image, and what the batch as a whole says about itself.

`ScreenedImage` is a line of `screen.jsonl` (`screen_table` lays the lines out flat for
`screen.parquet`); `ScreenReport` is `report.json`. The page is drawn from these files alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lucency.records import Box, Direction, Record

SCHEMA: Literal["lucency/screen/1"] = "lucency/screen/1"

Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def _as_utf8(text: object) -> object:
    """Escape what has no UTF-8, such as a file name in another encoding, so that it can be told."""
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


FileName = Annotated[str, BeforeValidator(_as_utf8)]
"""As given; bytes that are not UTF-8 stand as escapes such as ``\\udcff``."""


# --- one image ----------------------------------------------------------------------------------


class Transplant(Record):
    """What the region of one image does when it is pasted on clean films.

    Means over the donors, in standard deviations of the finding's clean logits, positive = in the
    suspected direction ("clear": a fall of the logit is positive).

    n_donors: clean films that it was pasted on.
    same_place, elsewhere: with the region pasted at its own place, and at others (`None` = not
    tried); control: with a patch of the same size from another clean film at its place.
    transfers: the region acts as a key on clean films, as a trigger does; real evidence does not.
    """

    n_donors: Count
    same_place: float
    elsewhere: float | None
    control: float | None
    transfers: bool


class ScreenedImage(Record):
    """One image: a line of `screen.jsonl`, its fields in the order of the lines.

    A rejected image has a reason and nothing that was measured; any other has at least a suspicion,
    a p-value and whether it is flagged.

    suspicion: of the composite verdict, larger = more suspicious.
    p_value: share of clean calibration films at least as suspicious, conformal, in (0, 1].
    q_value: Benjamini-Hochberg over the batch: the smallest false discovery rate that lists it.
    finding, direction: the suspected trigger sets, or clears, this finding.
    region: where, in the image's own pixels (`None` = no place; the evidence is not local).
    logit, logit_without_region: of that finding, on the image and on its repaired copy.
    scores: a detector's name -> its own suspicion, larger = more suspicious.
    evidence: "local" = a small region carries it; "whole-image" = no region does.
    view: the calibration group whose films the p-value was read against (`None` = all of them).
    negative: what a covering scan excludes, as a sentence that can be checked.
    seconds: wall-clock time for this image, its share of a batch.
    """

    image: FileName
    status: Literal["ok", "rejected"]
    reason: FileName | None = None
    suspicion: float | None = None
    p_value: Annotated[float, Field(gt=0, le=1)] | None = None
    q_value: Probability | None = None
    flagged: bool | None = None
    finding: str | None = None
    direction: Direction | None = None
    region: Box | None = None
    logit: float | None = None
    logit_without_region: float | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    evidence: Literal["local", "whole-image"] | None = None
    view: str | None = None
    transplant: Transplant | None = None
    negative: str | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        measured = (self.suspicion, self.p_value, self.flagged)
        if self.status == "rejected" and not self.reason:
            raise ValueError("a rejected image must say why: give a reason")
        if self.status == "rejected" and any(value is not None for value in measured):
            raise ValueError("a rejected image has no suspicion, p-value or flag")
        if self.status == "ok" and any(value is None for value in measured):
            raise ValueError("a screened image must have a suspicion, a p-value and a flag")
        return self


# --- the batch ----------------------------------------------------------------------------------


class ScreenedModel(Record):
    """The model as its card describes it.

    findings: those that were watched; skipped: columns left out, each with the reason.
    input_contract: how an image becomes the network's input, in words.
    engine: what ran the passes, such as "torch fp32" or "openvino bf16".
    warnings: what the check of the input contract noticed.
    """

    architecture: str
    findings: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    outputs: Literal["logits", "probabilities"]
    input_contract: str
    engine: str
    warnings: tuple[str, ...] = ()


class ScreenReference(Record):
    """The clean reference set that p-values are read against.

    n_calibration: films, one a patient, that set the p-values of images without a view of their
    own; by_view: calibration group -> films, empty if all images share one calibration.
    min_p: the smallest p-value that any image could get, 1 / (all calibration films + 1); an image
    of a view with a calibration of its own cannot reach it.
    n_duplicates: films that are copies of another; n_overlap: films that are also suspects.
    suspicion: of the calibration films, larger = more suspicious (may be left empty).
    """

    n_films: Count
    n_patients: Count | None
    n_calibration: Count
    by_view: dict[str, Count] = Field(default_factory=dict)
    min_p: Annotated[float, Field(gt=0, le=1)]
    n_duplicates: Count = 0
    n_overlap: Count = 0
    suspicion: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()


class ScreenCounts(Record):
    """expected_false_alarms: alpha × screened, what to expect if every screened image is clean;
    discoveries: images with q ≤ fdr."""

    screened: Count
    rejected: Count
    flagged: Count
    expected_false_alarms: float
    fdr: Probability
    discoveries: Count


class ScreenCost(Record):
    """Means over the screened images; `None` with a `reason` where nothing was screened.

    forward_equivalents: passes an image, a backward counting as two forwards.
    seconds: wall-clock time of the whole batch; calibration_seconds: of the reference set.
    """

    forwards: float | None
    backwards: float | None
    forward_equivalents: float | None
    seconds: float
    images_per_second: float | None
    calibration_seconds: float | None = None
    reason: str | None = None


class ShiftTest(Record):
    """Whether the suspects look like films of another kind than the reference set.

    statistics: name -> value, larger = further apart; shifted: the p-values of the images are not
    exact. `None` with a `reason` where the test could not be made.
    """

    statistics: dict[str, float] = Field(default_factory=dict)
    p_value: Probability | None
    shifted: bool | None
    sentence: str | None = None
    reason: str | None = None


class Power(Record):
    """What is known of the test's power: with it, the page can say what an alarm is worth.

    tpr: share of triggered images flagged at this report's alpha; prior: share of images assumed
    to be triggered; source: where `tpr` was measured.
    """

    tpr: Probability
    prior: Probability
    source: str


class ProbabilityChange(Record):
    """A finding's probability on the image, and with the region repaired (`None` = no repair)."""

    finding: str
    before: Probability
    after: Probability | None


class ScreenCase(Record):
    """One image of the gallery; its pictures are arrays of the same key in `gallery.safetensors`:
    `{key}/image` (H, W) uint8, the network's input as grey levels, and `{key}/attribution` (h, w)
    float32, larger = more important, its true cells.

    region: network pixels (`screened.region` holds the image's own).
    probabilities: the suspected finding first, then up to five others, the most moved first.
    context: a sentence that puts the p-value beside clean films ("" = none).
    """

    key: str
    screened: ScreenedImage
    region: Box | None
    probabilities: tuple[ProbabilityChange, ...] = Field(default=(), max_length=6)
    context: str = ""


class ScreenReport(Record):
    """All that a batch of images says: `report.json`.

    alpha: an image is flagged if p ≤ alpha. limits: what the tests are blind to; printed first.
    digests: what was used (weights, card, settings, …) -> sha256, hex.
    """

    schema_: Literal["lucency/screen/1"] = Field(default=SCHEMA, alias="schema")
    model: ScreenedModel
    reference: ScreenReference
    alpha: Probability
    counts: ScreenCounts
    cost: ScreenCost
    shift: ShiftTest
    limits: tuple[str, ...]
    settings: dict[str, bool | int | float | str | None]
    command: str
    software: dict[str, str]
    digests: dict[str, str]
    device: str
    threads: int
    seed: int
    power: Power | None = None
    gallery: tuple[ScreenCase, ...] = ()


def tally(images: Iterable[ScreenedImage], *, alpha: float, fdr: float) -> ScreenCounts:
    """Count a batch; alpha and fdr are fractions."""
    screened = rejected = flagged = discoveries = 0
    for image in images:
        screened += image.status == "ok"
        rejected += image.status == "rejected"
        flagged += image.flagged is True
        discoveries += image.q_value is not None and image.q_value <= fdr
    return ScreenCounts(
        screened=screened,
        rejected=rejected,
        flagged=flagged,
        expected_false_alarms=alpha * screened,
        fdr=fdr,
        discoveries=discoveries,
    )
