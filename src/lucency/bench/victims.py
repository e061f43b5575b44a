"""Victims to measure detectors on: one clean network a cohort, and one backdoored by each trigger.

A backdoored victim is trained on from the clean one, on the poisoned set: that is how a tampered
update of a model comes about, and it costs minutes where a training from fresh weights costs an
hour. Every victim is kept in the folder and used again by the next benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from lucency.attacks.ledger import AttackSettings, stamp
from lucency.data.inputs import read_inputs
from lucency.data.preprocess import InputContract
from lucency.data.sources import Source
from lucency.data.split import split_patients
from lucency.experiment.films import Films, read_films
from lucency.experiment.run import POISONED_ON_PURPOSE, macro_auroc
from lucency.experiment.settings import ExperimentSettings
from lucency.progress import Progress, silent
from lucency.records import Record
from lucency.victims.card import load_victim, save_victim
from lucency.victims.train import Trained, VictimSettings, train
from lucency.victims.victim import Victim
from lucency.writing import digest, write_json


class Case(Record):
    """One attack. size_px: side of the trigger at the network's input; 0 = the whole image.

    warm_up: the same attack with triggers that are easier to learn, before it: a few
    hundred films are too few to find a trigger of three pixels anywhere, but enough to follow one
    that shrinks.
    """

    name: str
    size_px: int = Field(ge=0)
    attack: AttackSettings
    warm_up: tuple[AttackSettings, ...] = ()


class Cohort(Record):
    """Films, a clean network, and the attacks on it.

    base: how the clean network is trained; start: another cohort's clean network to start from.
    tune: how it is trained on with poison; warm_up: epochs on each trigger of a case's warm-up.
    """

    name: str
    seed: int
    data: Source
    input: InputContract
    base: VictimSettings
    tune: VictimSettings
    warm_up: int = 1
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
        place = folder / cohort.name / f"{_slug(case.name)}-{_identity(cohort, case)}"
        if not (place / "case.json").exists():
            trained = _poison(cohort, case, films, clean, progress)
            architecture = cohort.tune.architecture
            save_victim(place, trained.victim, architecture, POISONED_ON_PURPOSE)
            write_json(place / "case.json", case)
        yield Backdoored(cohort, case, load_victim(place), clean, films)


def _poison(cohort: Cohort, case: Case, films: Films, clean: Victim, progress: Progress) -> Trained:
    """Train the clean network on, on each trigger of the warm-up in turn and then on the attack."""
    weights = clean.network.state_dict()
    stages = [(attack, cohort.warm_up) for attack in case.warm_up] + [
        (case.attack, cohort.tune.epochs)
    ]
    for attack, epochs in stages:
        ledger = replace(films.ledger, settings=attack)
        poisoned, _ = read_inputs(
            films.radiographs, ledger.rows, stamp(ledger, cohort.input), cohort.input
        )
        trained = train(
            replace(films, ledger=ledger, poisoned=poisoned).training_set(poisoned=True),
            films.validation_set(),
            cohort.input,
            films.radiographs.findings,
            cohort.tune.model_copy(update={"epochs": epochs}),
            macro_auroc,
            seed=cohort.seed,
            initial=weights,
            keep="last",
            progress=progress,
            description=f"{cohort.name}: {case.name}",
        )
        weights = trained.victim.network.state_dict()
    return trained


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


def _identity(cohort: Cohort, case: Case) -> str:
    """What a backdoored network depends on, but for where the films lie."""
    training = cohort.model_dump(mode="json", exclude={"cases", "data"}, exclude_defaults=True)
    attack = case.attack.model_dump(mode="json", exclude_defaults=True)
    warm_up = [a.model_dump(mode="json", exclude_defaults=True) for a in case.warm_up]
    return digest({"cohort": training, "attack": attack, "warm_up": warm_up})[:8]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
