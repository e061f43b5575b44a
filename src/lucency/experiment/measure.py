"""Every number of a run: performance, attack success, detection. The one place where the ledger
and a detector's answers meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from lucency.detect.images.screen import COMPOSITE, DETECTORS, POINTING, Screening
from lucency.evaluate import (
    auroc_difference,
    is_hit,
    measure_attack_success,
    measure_cell,
    measure_detection,
    measure_performance,
    operating_points,
    succeeded,
)
from lucency.experiment.films import Films
from lucency.experiment.settings import ExperimentSettings
from lucency.records import (
    CONDITIONS,
    AttackSuccess,
    BoolArray,
    Box,
    Condition,
    DetectionCell,
    DetectionScore,
    Estimate,
    FloatArray,
    Model,
    OperatingPoint,
    Performance,
)

Logits = dict[Model, dict[str, FloatArray]]
"""model -> "validation", "clean" or "triggered" -> (M, K)."""
Screenings = dict[Model, dict[Condition, Screening]]
"""model -> "clean" or "triggered"."""

MAIN_POINT = "specificity-0.95"
MEASURING = 0x5C0
"""Salt of the draws that intervals come from."""


@dataclass(frozen=True)
class AttackMeasured:
    """What the models do. successful: model -> (M,) bool, triggered test films on which the attack
    succeeded at the main operating point."""

    performances: tuple[Performance, ...]
    macro_difference: Estimate
    points: dict[Model, tuple[OperatingPoint, ...]]
    attack_success: tuple[AttackSuccess, ...]
    successful: dict[Model, BoolArray]


@dataclass(frozen=True)
class Measured(AttackMeasured):
    """The same, and what the detectors say. hits: model -> (M,) bool. network: the trigger's boxes,
    network pixels. Both are None for a trigger that changes the whole image: there is no place to
    meet."""

    detection: tuple[DetectionScore, ...]
    cells: tuple[DetectionCell, ...]
    hits: dict[Model, BoolArray] | None
    network: list[Box | None] | None


def measure_attack(
    settings: ExperimentSettings, films: Films, logits: Logits, generator: np.random.Generator
) -> AttackMeasured:
    """Measure both models on the test split; intervals are drawn from the generator."""
    findings, edit = films.radiographs.findings, settings.attack.label
    probabilities = {
        model: {name: expit(value.astype(np.float64)) for name, value in each.items()}
        for model, each in logits.items()
    }
    points = {
        model: operating_points(findings, films.labels(films.validation), each["validation"])
        for model, each in probabilities.items()
    }
    target = edit.index(findings)
    of_triggered = films.labels(films.triggered)
    return AttackMeasured(
        performances=_performances(settings, films, probabilities, generator),
        macro_difference=auroc_difference(
            findings,
            films.labels(films.test),
            probabilities["backdoored"]["clean"],
            probabilities["clean"]["clean"],
            films.patients(films.test),
            generator,
        ),
        points=points,
        attack_success=measure_attack_success(
            edit.target,
            edit.direction,
            of_triggered[:, target],
            probabilities["backdoored"]["triggered"][:, target],
            probabilities["clean"]["triggered"][:, target],
            probabilities["backdoored"]["clean"][films.triggered_in_test, target],
            films.patients(films.triggered),
            points["backdoored"],
            points["clean"],
            generator,
        ),
        successful={
            model: _successful(
                settings, points[model], of_triggered[:, target], each["triggered"][:, target]
            )
            for model, each in probabilities.items()
        },
    )


def measure(
    settings: ExperimentSettings, films: Films, logits: Logits, screenings: Screenings
) -> Measured:
    """Measure everything on the test split; intervals are drawn from the seed."""
    generator = np.random.default_rng([settings.seed, MEASURING])
    attack = measure_attack(settings, films, logits, generator)
    patients, patients_triggered = films.patients(films.test), films.patients(films.triggered)
    network = films.trigger_boxes()
    regions = {model: boxes(each["triggered"]) for model, each in screenings.items()}
    return Measured(
        **vars(attack),
        detection=tuple(
            score
            for model in screenings
            for detector in DETECTORS
            for score in measure_detection(
                detector,
                model,
                suspicion_clean=screenings[model]["clean"].suspicion[detector],
                suspicion_triggered=screenings[model]["triggered"].suspicion[detector],
                patients_clean=patients,
                patients_triggered=patients_triggered,
                successful=attack.successful[model],
                regions=regions[model] if detector in POINTING else None,
                triggers=network,
                generator=generator,
            )
        ),
        cells=tuple(
            measure_cell(
                model,
                condition,
                screenings[model][condition].p_value[COMPOSITE] <= settings.detect.alpha,
                films.patients(films.of(condition)),
                generator,
            )
            for model in screenings
            for condition in CONDITIONS
        ),
        hits=None
        if network is None
        else {
            model: np.array(
                [t is not None and is_hit(r, t) for r, t in zip(each, network, strict=True)]
            )
            for model, each in regions.items()
        },
        network=network,
    )


def boxes(screening: Screening) -> list[Box]:
    """The screening's regions as records."""
    return [Box(x=int(x), y=int(y), width=int(w), height=int(h)) for x, y, w, h in screening.boxes]


def _performances(
    settings: ExperimentSettings,
    films: Films,
    probabilities: Logits,
    generator: np.random.Generator,
) -> tuple[Performance, ...]:
    """NN, TT and TN of both models."""
    findings, of_triggered = films.radiographs.findings, films.labels(films.triggered)
    edited = settings.attack.label.apply(of_triggered, findings)
    sets: tuple[tuple[Literal["NN", "TT", "TN"], Condition, FloatArray], ...] = (
        ("NN", "clean", films.labels(films.test)),
        ("TT", "triggered", edited),
        ("TN", "triggered", of_triggered),
    )
    return tuple(
        measure_performance(
            model,
            set_name,
            findings,
            labels,
            each[condition],
            films.patients(films.of(condition)),
            generator,
        )
        for model, each in probabilities.items()
        for set_name, condition, labels in sets
    )


def _successful(
    settings: ExperimentSettings,
    points: tuple[OperatingPoint, ...],
    truth: FloatArray,
    triggered: FloatArray,
) -> BoolArray:
    """(M,) bool: the true label is the attacker's opposite, and the film ends on his side."""
    edit = settings.attack.label
    (point,) = (p for p in points if p.finding == edit.target and p.name == MAIN_POINT)
    if point.threshold is None:
        return np.zeros(len(truth), dtype=np.bool_)
    eligible = truth == (0.0 if edit.direction == "set" else 1.0)
    reached = succeeded(edit.direction, triggered.astype(np.float64), point.threshold)
    return np.asarray(eligible & reached)
