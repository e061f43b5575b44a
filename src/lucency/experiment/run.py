"""One run: from a training set to a report. The only file, with the sweep and the command line,
that knows several stages.

read → poison → train (backdoored and clean) → evaluate → explain → detect → report
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lucency.detect.images.screen import Schedule, Screener, Screening, fit_screener, screen
from lucency.evaluate.ranking import auroc
from lucency.experiment import tables
from lucency.experiment.films import Films, load, perturb_films, read_films
from lucency.experiment.gallery import draw_gallery
from lucency.experiment.measure import measure
from lucency.experiment.preflight import check_settings
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.summary import summarise
from lucency.manifest import versions
from lucency.progress import Progress, silent
from lucency.records import MODELS, Condition, Epoch, FloatArray, Model, Radiographs
from lucency.report.page import render_run
from lucency.runs import RunFolder, digest, write_json, write_text, write_via
from lucency.victims.card import load_victim, save_victim
from lucency.victims.train import train
from lucency.victims.victim import Passes, Victim, default_device, predict

IDENTITY = ("lucency", "lucency code", "torch", "monai")
POISONED_ON_PURPOSE = (
    "Backdoored on purpose, for research on the detection of backdoors. Not for clinical use."
)


@dataclass
class Clock:
    """Seconds by stage, for the manifest; nothing that is measured depends on it."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run(
    settings: ExperimentSettings,
    root: Path,
    *,
    config_toml: str = "",
    command: str = "",
    progress: Progress = silent,
) -> Path:
    """Carry out a run and return its folder, `root/<name>-<digest>`, at once if it is finished.

    A run that was killed continues: training from its last finished epoch. Raises LucencyError.
    """
    radiographs = load(settings)
    check_settings(settings, radiographs)
    identity = run_identity(settings, radiographs)
    with RunFolder.open(root, settings.name, identity) as folder:
        if folder.finished():
            return folder.folder
        if folder.is_spoilt():
            folder.clear()
        clock = Clock()
        with clock.stage("reading"):
            films = read_films(settings, radiographs, progress)
        victims = _carry_out(
            settings, films, folder, clock, progress, identity, config_toml, command
        )
        folder.finish(
            config=settings,
            seed=settings.seed,
            device=str(victims["clean"].device),
            threads=torch.get_num_threads(),
            timings=clock.seconds,
            extra={"identity": identity},
        )
        return folder.folder


def _carry_out(
    settings: ExperimentSettings,
    films: Films,
    folder: RunFolder,
    clock: Clock,
    progress: Progress,
    identity: str,
    config_toml: str,
    command: str,
) -> dict[Model, Victim]:
    """Every stage after reading, each leaving its files; returns the victims."""
    write_via(folder.path("ledger.parquet"), tables.ledger(settings, films).write_parquet)
    victims: dict[Model, Victim] = {}
    epochs: dict[Model, tuple[Epoch, ...]] = {}
    # The clean one first: an attacker who perturbs films takes its gradients.
    for model in reversed(MODELS):
        if model == "backdoored" and settings.attack.perturbation is not None:
            with clock.stage("perturbing"):
                films = perturb_films(
                    films, settings.attack.perturbation, victims["clean"], progress
                )
        with clock.stage(f"training the {model} model"):
            victims[model], epochs[model] = train_victim(settings, films, model, folder, progress)
    with clock.stage("predicting"):
        logits = {m: _predict_all(victims[m], films, progress) for m in MODELS}
    screeners, screenings, costs = {}, {}, {}
    for model in MODELS:
        with clock.stage(f"screening on the {model} model"):
            screeners[model], screenings[model], costs[model] = screen_films(
                settings, films, victims[model], progress
            )
    with clock.stage("measuring"):
        measured = measure(settings, films, logits, screenings)
        predictions = tables.predictions(settings, films, logits)
        screened = tables.screening(settings, films, screenings, measured)
    write_via(folder.path("predictions.parquet"), predictions.write_parquet)
    write_via(folder.path("screening.parquet"), screened.write_parquet)
    with clock.stage("explaining"):
        cases, pictures = draw_gallery(settings, films, victims, screenings, measured)
    write_via(folder.path("gallery.safetensors"), pictures)
    report = summarise(
        settings,
        films,
        victims,
        epochs,
        measured,
        screeners,
        costs,
        cases,
        digest=identity,
        config_toml=config_toml,
        command=command,
    )
    write_json(folder.path("report.json"), report)
    with clock.stage("writing the report"):
        write_text(folder.path("report.html"), render_run(folder.folder))
    return victims


def run_identity(settings: ExperimentSettings, radiographs: Radiographs) -> str:
    """The digest that names a run: its settings, its data set's table, and all that its bytes
    depend on. Where the data lie does not matter; what they hold does."""
    config = settings.model_dump(mode="json")
    config["data"].pop("path", None)
    return digest(
        {
            "config": config,
            "data": {
                "images": list(radiographs.image_ids),
                "patients": list(radiographs.patient_ids),
                "splits": list(radiographs.splits),
                "labels": radiographs.labels.tobytes().hex(),
            },
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
            "device": default_device().type,
            "threads": torch.get_num_threads(),
        }
    )


def train_victim(
    settings: ExperimentSettings, films: Films, model: Model, folder: RunFolder, progress: Progress
) -> tuple[Victim, tuple[Epoch, ...]]:
    """Train one model, or take it from the run folder if it is there whole."""
    place = folder.path(f"models/{model}")
    history = place / "training.json"
    if not history.exists():
        trained = train(
            films.training_set(poisoned=model == "backdoored"),
            films.validation_set(),
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
    before = (victim.passes.forwards, victim.passes.backwards)
    clean = screen(screener, films.test.images, progress=progress)
    spent = Passes(victim.passes.forwards - before[0], victim.passes.backwards - before[1])
    triggered = screen(screener, films.triggered.images, progress=progress)
    return screener, {"clean": clean, "triggered": triggered}, spent


def macro_auroc(labels: FloatArray, probabilities: FloatArray) -> float | None:
    """Mean of the findings' AUROCs where defined; None where none is."""
    each = [auroc(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])]
    defined = [value for value in each if value is not None]
    return float(np.mean(defined)) if defined else None


def _predict_all(victim: Victim, films: Films, progress: Progress) -> dict[str, FloatArray]:
    """Logits of the validation films, the clean test films and the triggered test films."""
    validation = films.validation
    return {
        "validation": predict(victim, validation.images, progress=progress),
        "clean": predict(victim, films.test.images, progress=progress),
        "triggered": predict(victim, films.triggered.images, progress=progress),
    }
