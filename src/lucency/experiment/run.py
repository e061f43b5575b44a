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

import torch

from lucency.experiment import tables
from lucency.experiment.films import Films, load, perturb_films, poison_films, read_clean
from lucency.experiment.gallery import draw_gallery
from lucency.experiment.measure import measure
from lucency.experiment.preflight import check_settings
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.stages import (
    predict_all,
    run_identity,
    screen_films,
    train_backdoored,
    train_clean,
)
from lucency.experiment.summary import summarise
from lucency.progress import Progress, silent
from lucency.records import MODELS, Epoch, Model
from lucency.report.page import render_run
from lucency.runs import RunFolder, write_json, write_text, write_via
from lucency.victims.victim import Victim


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
            clean = read_clean(settings, radiographs, progress)
            films = poison_films(settings, clean, progress)
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
    with clock.stage("training the clean model"):
        victims["clean"], epochs["clean"] = train_clean(settings, films, folder, progress)
    if settings.attack.perturbation is not None:
        with clock.stage("perturbing"):
            films = perturb_films(films, settings.attack.perturbation, victims["clean"], progress)
    with clock.stage("training the backdoored model"):
        victims["backdoored"], epochs["backdoored"] = train_backdoored(
            settings, films, folder, progress
        )
    with clock.stage("predicting"):
        logits = {m: predict_all(victims[m], films, progress) for m in MODELS}
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
