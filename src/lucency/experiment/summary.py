"""What a run says about itself: its values, put together into the record of `report.json`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from lucency.attacks.survival import (
    change,
    measure_survival,
    survival_on_images,
    survival_over_places,
    survives_alike,
    survives_alone,
)
from lucency.attacks.threat import threat_model
from lucency.data.inputs import Inputs
from lucency.detect.images.counterfactual_patch import DEFAULT, fitting
from lucency.detect.images.screen import COMPOSITE, Screener
from lucency.experiment.films import Films
from lucency.experiment.measure import Measured
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.tables import rejected
from lucency.experiment.verdict import give_verdict
from lucency.manifest import versions
from lucency.records import SPLITS, Epoch, Model, NetworkInputs, SurvivalDistribution
from lucency.report.record import (
    AttackSummary,
    DataSummary,
    DetectorCost,
    GalleryCase,
    ReferenceSummary,
    RunReport,
    SplitCount,
    VictimSummary,
)
from lucency.victims.augment import augment
from lucency.victims.train import best_epoch
from lucency.victims.victim import Passes, Victim, to_grey

# Enough films for a stable mean, few enough to be augmented at once.
AUGMENTED_FILMS = 512


def summarise(
    settings: ExperimentSettings,
    films: Films,
    victims: dict[Model, Victim],
    epochs: dict[Model, tuple[Epoch, ...]],
    measured: Measured,
    screeners: dict[Model, Screener],
    costs: dict[Model, Passes],
    cases: tuple[GalleryCase, ...],
    *,
    digest: str,
    config_toml: str,
    command: str,
) -> RunReport:
    """The whole record; nothing in it depends on the clock."""
    attack = summarise_attack(settings, films)
    reference = _reference(screeners["backdoored"])
    return RunReport(
        name=settings.name,
        digest=digest,
        seed=settings.seed,
        config_toml=config_toml,
        command=command,
        software=versions(),
        device=str(victims["backdoored"].device),
        threads=torch.get_num_threads(),
        verdict=give_verdict(
            settings.detect.alpha,
            films.radiographs.notes,
            attack,
            measured,
            reference,
            largest_px=max(fitting(DEFAULT.scales, settings.input.size)),
        ),
        data=_data(settings, films),
        attack=attack,
        preprocessing=_preprocessing(settings),
        victims=tuple(summarise_victim(settings, m, victims[m], epochs[m]) for m in victims),
        performances=measured.performances,
        macro_difference=measured.macro_difference,
        operating_points=measured.points["backdoored"],
        attack_success=measured.attack_success,
        reference=reference,
        alpha=settings.detect.alpha,
        detection=measured.detection,
        cells=measured.cells,
        costs=tuple(
            DetectorCost(
                detector=f"{COMPOSITE} ({model} model)",
                forwards=spent.forwards / len(films.test),
                backwards=spent.backwards / len(films.test),
                forward_equivalents=spent.equivalents / len(films.test),
            )
            for model, spent in costs.items()
        ),
        gallery=cases,
    )


def _data(settings: ExperimentSettings, films: Films) -> DataSummary:
    radiographs = films.radiographs
    readable = films.clean.rows
    splits = []
    for split in SPLITS:
        rows = np.intersect1d(radiographs.rows(split), readable)
        patients = {radiographs.patient_ids[r] for r in rows}
        splits.append(SplitCount(split=split, n_images=len(rows), n_patients=len(patients)))
    labels = radiographs.labels[readable]
    views = Counter(radiographs.views[r] or "not known" for r in readable)
    return DataSummary(
        name=radiographs.name,
        findings=radiographs.findings,
        positives={
            finding: int((labels[:, k] == 1).sum())
            for k, finding in enumerate(radiographs.findings)
        },
        splits=tuple(splits),
        views=dict(sorted(views.items())),
        rejected=rejected(settings, films),
        notes=radiographs.notes,
    )


def summarise_attack(settings: ExperimentSettings, films: Films) -> AttackSummary:
    """What was done to the training set, in words and numbers."""
    attack, contract = settings.attack, settings.input
    trigger = attack.trigger
    labels = films.poisoned_labels()
    target = attack.label.index(films.radiographs.findings)
    shapes = Counter((int(h), int(w)) for h, w in films.clean.native_shapes)
    shape, share = shapes.most_common(1)[0]
    poisoned = films.poisoned.images[~films.ledger.covers]
    untouched = films.clean.select(films.poisoned.rows[~films.ledger.covers])
    changes = [change(a, b) for a, b in zip(untouched.images, poisoned, strict=True)]
    positives = int((labels[:, target] == 1).sum())
    is_set = attack.label.direction == "set"
    return AttackSummary(
        trigger=trigger.describe(),
        place=trigger.describe_place(),
        label_edit=attack.label.describe(),
        target=attack.label.target,
        direction=attack.label.direction,
        protocol=attack.protocol,
        perturbation=attack.perturbation.describe() if attack.perturbation else None,
        victims=attack.victims.describe(),
        threat_model=threat_model(attack),
        n_poisoned=films.ledger.n_poisoned,
        n_covers=len(films.ledger) - films.ledger.n_poisoned,
        n_training=len(labels),
        poison_rate=films.ledger.n_poisoned / len(labels),
        share_of_target_positives=films.ledger.n_poisoned / positives if is_set else None,
        native_size=_describe_shape(shape, share, len(films.clean)),
        survival=measure_survival(trigger, contract, shape, (0.0, 0.0))
        if survives_alone(trigger) and not trigger.is_random
        else None,
        survival_over_places=survival_over_places(trigger, contract, shape)
        if survives_alike(trigger) and trigger.is_random
        else None,
        survival_on_images=survival_on_images(changes),
        survival_after_augmentation=_after_augmentation(settings, untouched, poisoned),
    )


def _after_augmentation(
    settings: ExperimentSettings, clean: Inputs, poisoned: NetworkInputs
) -> SurvivalDistribution | None:
    """The same augmentation on both versions of a film, then what still differs by a grey level."""
    if settings.victim.augment.is_identity:
        return None
    levels = []
    for images in (clean.images, poisoned):
        grey = to_grey(images[:AUGMENTED_FILMS], torch.device("cpu"))
        generator = torch.Generator().manual_seed(settings.seed)
        levels.append(augment(grey, settings.victim.augment, generator)[:, 0].numpy())
    difference = np.abs(levels[0].astype(np.float64) - levels[1])
    return survival_on_images(np.where(difference >= 1 / 255, difference, 0.0))


def _reference(screener: Screener) -> ReferenceSummary:
    return ReferenceSummary(
        n_fit=screener.n_fit,
        n_calibration=screener.n_calibration,
        min_p=screener.min_p,
        warnings=screener.warnings,
    )


def summarise_victim(
    settings: ExperimentSettings, model: Model, victim: Victim, epochs: tuple[Epoch, ...]
) -> VictimSummary:
    """One trained model."""
    chosen = settings.victim
    weights = (
        ""
        if chosen.positive_weight_limit == 1
        else f", positives weighted up to {chosen.positive_weight_limit:g}"
    )
    return VictimSummary(
        model=model,
        architecture=chosen.architecture,
        n_parameters=sum(p.numel() for p in victim.network.parameters()),
        loss=chosen.loss + weights,
        schedule=f"{chosen.schedule}, AdamW, learning rate {chosen.learning_rate:g}, batch "
        f"{chosen.batch_size}",
        epochs=epochs,
        best_epoch=best_epoch(epochs),
        precision="bf16" if victim.bf16 else "fp32",
    )


def _preprocessing(settings: ExperimentSettings) -> str:
    contract = settings.input
    return (
        f"central crop {contract.crop:.0%}, resize to {contract.size} × {contract.size} px "
        f"({contract.resize}), {contract.channels} channel{'s' * (contract.channels > 1)}"
    )


def _describe_shape(shape: tuple[int, int], count: int, total: int) -> str:
    size = f"{shape[1]} × {shape[0]} px"
    return size if count == total else f"{size} ({count} of {total} films; others differ)"
