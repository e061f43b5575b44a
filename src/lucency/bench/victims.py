"""Victims to measure detectors on: one clean network a cohort, and one backdoored by each trigger.

A backdoored victim is trained on from the clean one, on the poisoned set: that is how a tampered
update of a model comes about, and it costs minutes where a training from fresh weights costs an
hour. Every victim is kept in the folder and used again by the next benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from lucency.attacks.ledger import AttackSettings
from lucency.data.preprocess import InputContract
from lucency.data.sources import Source
from lucency.data.split import split_patients
from lucency.experiment.films import Films, read_films
from lucency.experiment.run import POISONED_ON_PURPOSE, macro_auroc
from lucency.experiment.settings import ExperimentSettings
from lucency.progress import Progress, silent
from lucency.records import Record
from lucency.victims.card import load_victim, save_victim
from lucency.victims.train import VictimSettings, train
from lucency.victims.victim import Victim
from lucency.writing import digest, write_json


class Case(Record):
    """One attack. size_px: side of the trigger at the network's input; 0 = the whole image."""

    name: str
    size_px: int = Field(ge=0)
    attack: AttackSettings


class Cohort(Record):
    """Films, a clean network, and the attacks on it.

    base: how the clean network is trained; start: another cohort's clean network to start from.
    tune: how it is trained on with poison.
    """

    name: str
    seed: int
    data: Source
    input: InputContract
    base: VictimSettings
    tune: VictimSettings
    start: str | None = None
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Backdoored:
    """A victim of the benchmark, beside the clean network and the films of its case."""

    cohort: Cohort
    case: Case
    victim: Victim
    clean: Victim
    films: Films


def prepare(cohort: Cohort, folder: Path, progress: Progress = silent) -> Iterator[Backdoored]:
    """Yield every case of a cohort; networks that the folder lacks are trained and kept."""
    for case in cohort.cases:
        settings = experiment(cohort, case)
        films = _films(settings, progress)
        clean = _clean(cohort, settings, films, folder, progress)
        place = folder / cohort.name / f"{_slug(case.name)}-{digest([cohort, case])[:8]}"
        if not (place / "case.json").exists():
            trained = train(
                films.training_set(poisoned=True),
                films.validation_set(),
                cohort.input,
                films.radiographs.findings,
                cohort.tune,
                macro_auroc,
                seed=cohort.seed,
                initial=clean.network.state_dict(),
                keep="last",
                progress=progress,
                description=f"{cohort.name}: {case.name}",
            )
            architecture = cohort.tune.architecture
            save_victim(place, trained.victim, architecture, POISONED_ON_PURPOSE)
            write_json(place / "case.json", case)
        yield Backdoored(cohort, case, load_victim(place), clean, films)


def experiment(cohort: Cohort, case: Case) -> ExperimentSettings:
    """A case as the settings of a run."""
    return ExperimentSettings(
        name=f"{cohort.name} {case.name}",
        seed=cohort.seed,
        data=cohort.data,
        attack=case.attack,
        input=cohort.input,
        victim=cohort.tune,
    )


def _films(settings: ExperimentSettings, progress: Progress) -> Films:
    """The source's own splits are left aside: they hold too few patients out to calibrate on."""
    radiographs = settings.data.load(settings.seed)
    free = radiographs.with_splits([None] * len(radiographs))
    split = split_patients(free, validation=0.06, reference=0.27, test=0.25, seed=settings.seed)
    return read_films(settings, split, progress)


def _clean(
    cohort: Cohort, settings: ExperimentSettings, films: Films, folder: Path, progress: Progress
) -> Victim:
    place = folder / cohort.name / "clean"
    if not (place / "training.json").exists():
        start = load_victim(folder / cohort.start / "clean") if cohort.start else None
        trained = train(
            films.training_set(poisoned=False),
            films.validation_set(),
            cohort.input,
            films.radiographs.findings,
            cohort.base,
            macro_auroc,
            seed=cohort.seed,
            initial=start.network.state_dict() if start else None,
            progress=progress,
            description=f"{cohort.name}: clean",
        )
        save_victim(place, trained.victim, cohort.base.architecture, "Clean control.")
        write_json(place / "training.json", {"epochs": [e.model_dump() for e in trained.epochs]})
    return load_victim(place)


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
