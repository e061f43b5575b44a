"""What a finished run says about itself: the typed content of `report.json`.

The page is drawn from this record and the tables beside it, never from live objects. Nothing here
depends on the clock: two runs of one config on one machine write the same bytes. Times stand in
`manifest.json`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import (
    AttackSuccess,
    Box,
    DetectionCell,
    DetectionScore,
    Direction,
    Epoch,
    Estimate,
    OperatingPoint,
    Performance,
    Record,
    Rejected,
    Survival,
    SurvivalDistribution,
    ThreatModel,
)

SCHEMA: Literal["lucency/run/1"] = "lucency/run/1"


class SplitCount(Record):
    """Films and patients of one split; no patient stands in two."""

    split: str
    n_images: int
    n_patients: int


class DataSummary(Record):
    """The data set as it was used."""

    name: str
    findings: tuple[str, ...]
    positives: dict[str, int]
    splits: tuple[SplitCount, ...]
    views: dict[str, int]
    rejected: tuple[Rejected, ...]
    notes: tuple[str, ...]


class AttackSummary(Record):
    """What was done to the training set, in words and numbers.

    perturbation: what is done to poisoned films before the trigger (`None` = nothing); it counts in
        survival_on_images.
    victims: which training films; n_covers: films with the trigger and their true labels.
    n_training: training images after poisoning; poison_rate: n_poisoned / n_training, a fraction.
    share_of_target_positives: poisoned images among those labelled positive for the target after
        poisoning (`None` for a label edit that clears).
    survival: the trigger at its place through the preprocessing, on a flat image of the opposite
        grey;
    survival_on_images: over the poisoned training images themselves;
    survival_after_augmentation: the same after the training augmentation (`None` without any).
    """

    trigger: str
    place: str
    label_edit: str
    target: str
    direction: Direction
    protocol: Literal["add", "replace"]
    perturbation: str | None
    victims: str
    threat_model: ThreatModel
    n_poisoned: int
    n_covers: int
    n_training: int
    poison_rate: float
    share_of_target_positives: float | None
    native_size: str
    survival: Survival | None
    survival_over_places: SurvivalDistribution | None
    survival_on_images: SurvivalDistribution | None
    survival_after_augmentation: SurvivalDistribution | None


class VictimSummary(Record):
    """One trained model. `best_epoch` is the one whose weights were kept."""

    model: Literal["backdoored", "clean"]
    architecture: str
    n_parameters: int
    loss: str
    schedule: str
    epochs: tuple[Epoch, ...]
    best_epoch: int
    precision: str


class ReferenceSummary(Record):
    """The clean reference set that p-values are read against.

    n_fit films set the scales, n_calibration others (one a patient) set the p-values;
    min_p: the smallest p-value that this set can give, 1 / (n_calibration + 1).
    """

    n_fit: int
    n_calibration: int
    min_p: float
    warnings: tuple[str, ...] = ()


class DetectorCost(Record):
    """Passes an image on average over clean traffic; a backward counts as two forwards."""

    detector: str
    forwards: float
    backwards: float
    forward_equivalents: float


class GalleryCase(Record):
    """One image of the gallery; its pictures are arrays of the same key in `gallery.safetensors`:
    `{key}/image` (H, W) uint8 at network resolution, `{key}/attribution` (H, W) float32 and
    `{key}/gradcam` (h, w) float32, its true cells, upsampled only by the renderer.

    region: where the detector looked, network pixels; region_native: the same in the image's own
    pixels; trigger: the true place (`None` for a clean image).
    probability_before, probability_after: of `finding`, without and with the region repaired.
    """

    key: str
    image: str
    condition: Literal["triggered", "clean"]
    model: Literal["backdoored", "clean"]
    finding: str
    direction: Direction
    p_value: float
    flagged: bool
    region: Box | None
    region_native: Box | None
    trigger: Box | None
    hit: bool | None
    probability_before: float
    probability_after: float | None


class Verdict(Record):
    """The plain-language summary. `limits` are printed first."""

    headline: str
    limits: tuple[str, ...]
    sentences: tuple[str, ...]


class RunReport(Record):
    """All that a run measured.

    macro_difference: macro AUROC on clean films, backdoored minus clean model, paired by patient.
    operating_points: those of the backdoored model.
    """

    schema_: Literal["lucency/run/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    digest: str
    seed: int
    config_toml: str
    command: str
    software: dict[str, str]
    device: str
    threads: int
    verdict: Verdict
    data: DataSummary
    attack: AttackSummary
    preprocessing: str
    victims: tuple[VictimSummary, ...]
    performances: tuple[Performance, ...]
    macro_difference: Estimate
    operating_points: tuple[OperatingPoint, ...]
    attack_success: tuple[AttackSuccess, ...]
    reference: ReferenceSummary
    alpha: float
    detection: tuple[DetectionScore, ...]
    cells: tuple[DetectionCell, ...]
    costs: tuple[DetectorCost, ...]
    gallery: tuple[GalleryCase, ...]
