"""The stages of a run, each a plain function: what `run` and a sweep have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from pydantic import JsonValue

from lucency.detect.images.screen import Schedule, Screener, Screening, fit_screener, screen
from lucency.evaluate.ranking import auroc
from lucency.experiment import tables
from lucency.experiment.films import CleanFilms, Films
from lucency.experiment.settings import ExperimentSettings
from lucency.manifest import versions
from lucency.progress import Progress
from lucency.records import Condition, Epoch, FloatArray, Model, Radiographs
from lucency.runs import RunFolder, digest, write_json
from lucency.victims.card import load_victim, save_victim
from lucency.victims.train import TrainingSet, train
from lucency.victims.victim import Passes, Victim, default_device, predict

IDENTITY = ("lucency", "lucency code", "torch", "monai")
POISONED_ON_PURPOSE = (
    "Backdoored on purpose, for research on the detection of backdoors. Not for clinical use."
)


def run_identity(settings: ExperimentSettings, radiographs: Radiographs) -> str:
    """The digest that names a run."""
    config = settings.model_dump(mode="json")
    return identity_of(config, radiographs, default_device().type, torch.get_num_threads())


def identity_of(
    config: Mapping[str, JsonValue], radiographs: Radiographs, device: str, threads: int
) -> str:
    """The digest of a result: of its settings or a part of them, its data set's table, and all else
    that its bytes depend on. Where the data lie does not matter; what they hold does."""
    data = config["data"]
    placeless = {k: v for k, v in data.items() if k != "path"} if isinstance(data, dict) else data
    return digest(
        {
            "config": {**config, "data": placeless},
            "data": {
                "images": list(radiographs.image_ids),
                "patients": list(radiographs.patient_ids),
                "splits": list(radiographs.splits),
                "labels": radiographs.labels.tobytes().hex(),
            },
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
            "device": device,
            "threads": threads,
        }
    )


def train_clean(
    settings: ExperimentSettings, films: CleanFilms, folder: RunFolder, progress: Progress
) -> tuple[Victim, tuple[Epoch, ...]]:
    """Train the clean model, or take it from the run folder if it is there whole."""
    sets = films.clean_training_set(), films.validation_set()
    return _train(settings, films, *sets, "clean", folder, progress)


def train_backdoored(
    settings: ExperimentSettings,
    films: Films,
    folder: RunFolder,
    progress: Progress,
    *,
    keep: bool = True,
) -> tuple[Victim, tuple[Epoch, ...]]:
    """The same for the model of the poisoned set. keep: its weights outlive the run."""
    sets = films.training_set(), films.validation_set_of_backdoored()
    return _train(settings, films, *sets, "backdoored", folder, progress, keep=keep)


def _train(
    settings: ExperimentSettings,
    films: CleanFilms,
    training: TrainingSet,
    validation: TrainingSet,
    model: Model,
    folder: RunFolder,
    progress: Progress,
    *,
    keep: bool = True,
) -> tuple[Victim, tuple[Epoch, ...]]:
    place = (folder.folder if keep else folder.checkpoint) / "models" / model
    history = place / "training.json"
    if not history.exists():
        trained = train(
            training,
            validation,
            settings.input,
            films.radiographs.findings,
            settings.victim,
            macro_auroc,
            seed=settings.seed,
            checkpoint=folder.checkpoint / f"{model}.safetensors",
            progress=progress,
            description=f"Training the {model} model",
        )
        purpose = POISONED_ON_PURPOSE if model == "backdoored" else "Clean control."
        save_victim(place, trained.victim, settings.victim.architecture, purpose)
        # Last: its presence says that the weights are whole.
        write_json(history, {"epochs": [e.model_dump() for e in trained.epochs]})
    # Always from disk, so that a continued run computes with the very same object.
    return load_victim(place), tables.read_epochs(history)


def screen_films(
    settings: ExperimentSettings, films: Films, victim: Victim, progress: Progress
) -> tuple[Screener, dict[Condition, Screening], Passes]:
    """Calibrate on the reference split, screen the clean and the triggered test films.

    Returns the passes spent on the clean ones. No ledger enters.
    """
    reference = films.reference
    screener = fit_screener(
        victim,
        reference.images,
        [films.radiographs.patient_ids[r] for r in reference.rows],
        seed=settings.seed,
        views=[films.radiographs.views[r] for r in reference.rows],
        alpha=settings.detect.alpha,
        schedule=Schedule(fit_share=settings.detect.fit_share),
        progress=progress,
    )
    before = replace(victim.passes)
    clean = screen(screener, films.test.images, progress=progress)
    spent = victim.passes.since(before)
    triggered = screen(screener, films.triggered.images, progress=progress)
    return screener, {"clean": clean, "triggered": triggered}, spent


def macro_auroc(labels: FloatArray, probabilities: FloatArray) -> float | None:
    """Mean of the findings' AUROCs where defined; None where none is."""
    each = [auroc(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])]
    defined = [value for value in each if value is not None]
    return float(np.mean(defined)) if defined else None


def predict_all(victim: Victim, films: Films, progress: Progress) -> dict[str, FloatArray]:
    """Logits of the validation films, the clean test films and the triggered test films."""
    return {
        "validation": predict(victim, films.validation.images, progress=progress),
        "clean": predict(victim, films.test.images, progress=progress),
        "triggered": predict(victim, films.triggered.images, progress=progress),
    }
