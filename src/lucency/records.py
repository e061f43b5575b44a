"""The values that flow between the stages: what is read, and what is measured.

Everything here is immutable. Arrays that are large stay arrays (`Radiographs`); everything that is
written to disk is a `Record`, which refuses NaN and infinity: what is undefined is ``None`` and
says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""One film as stored: (H, W), unsigned, 0 = black."""
NetworkInputs = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(N, size, size): films after crop and resize, in the stored dtype."""

Split = Literal["train", "validation", "reference", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "reference", "test")
Direction = Literal["set", "clear"]
Model = Literal["backdoored", "clean"]
MODELS: tuple[Model, ...] = ("backdoored", "clean")
Condition = Literal["clean", "triggered"]
CONDITIONS: tuple[Condition, ...] = ("clean", "triggered")
EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
"""What computes forward passes."""
Examine = Literal["unusual", "all"]
"""Which films get the whole of T1."""


class Record(BaseModel):
    """A value that is written to disk: frozen, closed, and free of NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- what is read -------------------------------------------------------------------------------


class Rejected(Record):
    """A file that could not be used, and why; the rest of its data set was processed."""

    image: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """One film that was read and transformed.

    index: its row in the `Radiographs`.
    native_shape: (height, width) as stored, before the transform.
    image: the transform's result, (h, w), same dtype as stored.
    """

    index: int
    native_shape: tuple[int, int]
    image: Image


Transform = Callable[[Image, int], Image]
"""A pure, picklable function from (image as stored, its row) to an image."""


class Images(Protocol):
    """Where pixels come from: a folder of files, or an array in memory."""

    def read(
        self, rows: Sequence[int], transform: Transform
    ) -> Iterator[Decoded | tuple[int, str]]:
        """Yield, in the order of `rows`, a `Decoded`, or (row, reason) for a file that failed."""
        ...


@dataclass(frozen=True)
class Radiographs:
    """A data set of N films and K findings, its pixels read lazily.

    image_ids: N unique names; patient_ids: N names, several films may share one.
    labels: (N, K) float32 in {1, 0, NaN}; NaN = nothing is known.
    splits: N names in `SPLITS`, or None where the source leaves the choice to us.
    views: N names such as "PA" and "AP", or None where unknown.
    rejected: rows of the source that are not among the N, with the reason.
    notes: plain sentences for the report on what is unusual in this source.
    """

    name: str
    findings: tuple[str, ...]
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: FloatArray
    splits: tuple[Split | None, ...]
    views: tuple[str | None, ...]
    images: Images
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, split: Split) -> IntArray:
        """Rows of one split, in the order of the source, int64."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], dtype=np.int64)

    def with_splits(self, splits: Sequence[Split | None]) -> Radiographs:
        return replace(self, splits=tuple(splits))


class Box(Record):
    """A rectangle of pixels: x to the right and y down from the top left corner, in pixels."""

    x: int
    y: int
    width: int
    height: int


# --- what is measured ---------------------------------------------------------------------------


class Estimate(Record):
    """A number with its 95 % interval; ``None`` with a `reason` where it is undefined.

    n: how many things it was computed from (images for a per-finding metric, findings for a mean).
    reason: why there is no value, or no interval around it.
    undefined_resamples: bootstrap resamples left out of the interval because they lack a class.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
    undefined_resamples: int = 0


class Rate(Record):
    """A share with both counts and its 95 % interval; ``None`` with a `reason` if trials = 0."""

    successes: int
    trials: int
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class FindingPerformance(Record):
    """How well one finding's probability ranks positives above negatives (higher = better)."""

    finding: str
    n_positive: int
    n_negative: int
    n_unknown: int
    auroc: Estimate
    auprc: Estimate


class Performance(Record):
    """One model on one set of labelled images.

    set_name: "NN" (clean images, true labels), "TT" (infected images, target labels) or "TN"
        (infected images, true labels), after the paper.
    macro_auroc, macro_auprc: means over the findings on which they are defined; `n` counts those.
    excluded: findings left out of the means, with the reason.
    micro_auroc: pools all findings; read it only against `micro_floor`, the score of a predictor
        that never looks at the image and answers with each finding's prevalence.
    """

    model: Literal["backdoored", "clean"]
    set_name: Literal["NN", "TT", "TN"]
    n_images: int
    n_patients: int
    findings: tuple[FindingPerformance, ...]
    macro_auroc: Estimate
    macro_auprc: Estimate
    micro_auroc: Estimate
    micro_floor: float | None
    excluded: tuple[str, ...] = ()


class Epoch(Record):
    """One epoch of training: mean loss, binary cross-entropy on the clean validation set, and macro
    AUROC on it (`None` = undefined)."""

    epoch: int
    loss: float
    validation_loss: float
    validation_auroc: float | None


class OperatingPoint(Record):
    """A finding's decision threshold: positive if probability > threshold.

    Sensitivity and specificity are those on the clean validation set on which it was fixed
    (``None`` where that set lacks a class).
    """

    name: Literal["specificity-0.95", "youden", "0.6", "0.9"]
    finding: str
    threshold: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    reason: str | None = None


class AttackSuccess(Record):
    """Share of triggered images, whose true target label is 0 (set) or 1 (clear), that end on the
    attacker's side of the operating point. Higher = the attack works better.

    backdoored, clean_model: both models on the same triggered images, each at its own threshold.
    untriggered: the backdoored model on the same images without the trigger.
    excess: backdoored minus clean model, a fraction.
    """

    operating_point: str
    finding: str
    direction: Direction
    threshold: float | None
    clean_threshold: float | None
    backdoored: Rate
    clean_model: Rate
    untriggered: Rate
    excess: float | None


class DetectionCell(Record):
    """One cell of the 2 × 2 of clean/triggered image × clean/backdoored model."""

    model: Literal["backdoored", "clean"]
    images: Literal["clean", "triggered"]
    flagged: Rate


class DetectionScore(Record):
    """A detector against the ledger, on one model. Higher is better for all but `flagged`.

    over: "all" triggered images, or "successful": only those on which the attack succeeded.
    auroc: suspicion separates triggered from clean test images.
    tpr_at_fpr_1, tpr_at_fpr_5: share of triggered images above the threshold that lets 1 % (5 %)
        of the clean test images through.
    hit_rate: region centre within 2 px of the trigger, at network resolution.
    """

    detector: str
    model: Literal["backdoored", "clean"]
    over: Literal["all", "successful"]
    n_clean: int
    n_triggered: int
    auroc: Estimate
    tpr_at_fpr_1: Rate
    tpr_at_fpr_5: Rate
    hit_rate: Rate


class FrameworkRef(Record):
    """An entry of a published framework, with the version that has it under this number."""

    framework: str
    version: str
    id: str
    name: str

    @classmethod
    def of(cls, framework: tuple[str, str], identifier: str, name: str) -> FrameworkRef:
        """From a framework's name and version."""
        return cls(framework=framework[0], version=framework[1], id=identifier, name=name)


class ThreatModel(Record):
    """What an attacker wants, can do and knows, in words; and what others call it."""

    goal: str
    capability: str
    knowledge: str
    frameworks: tuple[FrameworkRef, ...]


class Survival(Record):
    """What is left of a trigger at the network's input.

    pixels: network pixels that differ by at least one grey level of the stored range.
    max_change: largest absolute difference, fraction of the full grey range in [0, 1].
    """

    native_px: int
    pixels: int
    max_change: float


class SurvivalDistribution(Record):
    """Survival over all places that a trigger may take, or over a sample of real images.

    pixels: count of surviving pixels (as a string, since JSON keys are) -> share of places.
    """

    n_places: int
    share_vanished: float
    mean_pixels: float
    mean_max_change: float
    pixels: dict[str, float] = Field(default_factory=dict)


class Visibility(Record):
    """How much triggered images differ from the same images without the trigger.

    psnr_db: higher = harder to see (``None`` where nothing differs: `reason`). ssim: in [-1, 1],
    1 = the same (``None`` where images are smaller than its window).
    """

    n_images: int
    psnr_db: float | None
    ssim: float | None
    reason: str | None = None


class TriggerVisibility(Record):
    """At the images' own resolution, which a reader sees, and at the network's input."""

    native: Visibility
    network: Visibility
