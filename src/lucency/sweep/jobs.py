"""What a sweep's worker does: train a clean model, or poison, train and measure.

A clean model knows nothing of the attack, so runs that differ in nothing else share one. A job owns
its folder while it works, continues a training that was killed, and returns at once when its folder
is finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from lucency.data.guard import decoding_limits
from lucency.errors import ConfigError
from lucency.experiment import tables
from lucency.experiment.films import CleanFilms, load, perturb_films, poison_films, read_clean
from lucency.experiment.measure import MEASURING, measure_attack
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.stages import predict_all, train_backdoored, train_clean
from lucency.experiment.summary import summarise_attack, summarise_victim
from lucency.experiment.visibility import trigger_visibility
from lucency.manifest import versions
from lucency.progress import silent
from lucency.records import MODELS, Model
from lucency.report.sweep_record import RunRecord
from lucency.runs import RunFolder, digest, write_json, write_via
from lucency.victims.card import load_victim
from lucency.victims.victim import Victim, default_device

RECORD = "run.json"
THREADS = 1
"""Of every job, wherever it runs: the number of threads is part of what a result depends on. Its
films are decoded by so many processes."""
OF_CLEAN = {"seed", "data", "split", "input", "victim"}
OF_RUN = OF_CLEAN | {"attack", "report"}
"""The settings that a clean model, and a run, depend on."""


@dataclass(frozen=True)
class Job:
    """Attack, beside the clean model in the folder `clean`; without one, train a clean model.

    identity: digest of all that the result depends on. device: the kind that it is computed on.
    """

    settings: ExperimentSettings
    folder: Path
    identity: str
    device: str
    clean: Path | None = None
    keep_model: bool = False


def carry_out(job: Job) -> None:
    """Do a job, unless it is done. Raises LucencyError."""
    with _threads(), RunFolder(job.folder) as folder:
        if folder.finished():
            return
        if folder.is_spoilt():
            folder.clear()
        if default_device().type != job.device:
            raise ConfigError(
                f"Every worker must compute on the same kind of device, {job.device}, but one has "
                f"{default_device().type}; on a cluster, set --gpus."
            )
        films = _clean_films(job.settings)
        if job.clean is None:
            train_clean(job.settings, films, folder, silent)
        else:
            _attack(job, films, folder, job.clean)
        folder.finish(
            config=config_of(job.settings, OF_CLEAN if job.clean is None else OF_RUN),
            seed=job.settings.seed,
            device=job.device,
            threads=THREADS,
            extra={"identity": job.identity},
        )


def config_of(settings: ExperimentSettings, keys: set[str]) -> dict[str, Any]:
    """These parts of the settings, as JSON has them."""
    return settings.model_dump(mode="json", include=keys)


def _attack(job: Job, clean: CleanFilms, folder: RunFolder, clean_folder: Path) -> None:
    settings = job.settings
    films = poison_films(settings, clean, silent)
    write_via(folder.path("ledger.parquet"), tables.ledger(settings, films).write_parquet)
    place = clean_folder / "models" / "clean"
    unharmed, its_epochs = load_victim(place), tables.read_epochs(place / "training.json")
    if settings.attack.perturbation is not None:
        films = perturb_films(films, settings.attack.perturbation, unharmed, silent)
    backdoored, epochs = train_backdoored(settings, films, folder, silent, keep=job.keep_model)
    victims: dict[Model, Victim] = {"backdoored": backdoored, "clean": unharmed}
    logits = {model: predict_all(victims[model], films, silent) for model in MODELS}
    generator = np.random.default_rng([settings.seed, MEASURING])
    measured = measure_attack(settings, films, logits, generator)
    predictions = tables.predictions(settings, films, logits)
    write_via(folder.path("predictions.parquet"), predictions.write_parquet)
    record = RunRecord(
        digest=job.identity,
        seed=settings.seed,
        software=versions(),
        device=job.device,
        threads=THREADS,
        findings=films.radiographs.findings,
        attack=summarise_attack(settings, films),
        visibility=trigger_visibility(films),
        victims=(
            summarise_victim(settings, "clean", unharmed, its_epochs),
            summarise_victim(settings, "backdoored", backdoored, epochs),
        ),
        performances=measured.performances,
        macro_difference=measured.macro_difference,
        attack_success=measured.attack_success,
    )
    write_json(folder.path(RECORD), record)


_READ: dict[str, CleanFilms] = {}


def _clean_films(settings: ExperimentSettings) -> CleanFilms:
    """The films of the last job are kept: those of one data set and seed come one after another."""
    key = digest(config_of(settings, OF_CLEAN - {"victim"}))
    if key not in _READ:
        # Before the others are read: there may be room for one set only.
        _READ.clear()
        _READ[key] = read_clean(settings, load(settings), silent)
    return _READ[key]


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with threadpool_limits(THREADS), decoding_limits(THREADS):
            yield
    finally:
        torch.set_num_threads(before)
