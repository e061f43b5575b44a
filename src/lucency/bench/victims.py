"""Victims to measure detectors on: one clean network a cohort, and one backdoored by each trigger.

A backdoored victim is trained on from the clean one by an attacker who controls that training: in
every epoch each film also comes with the trigger, at a new place where the place is random, and
with the changed label. Triggers of a few pixels shrink to their size over the epochs; a few hundred
films are too few to find three pixels anywhere, and enough to follow them. That makes strong
backdoors of the smallest triggers in minutes, which is what a detector is to be measured on.

Triggers are stamped on the network's input, so that their size is that at the network. Every
victim is kept in a folder and used again by the next benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue

from lucency.attacks import Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import plain
from lucency.bench.disguise import disguise
from lucency.bench.stamping import stamp_films
from lucency.data.inputs import Inputs, read_inputs
from lucency.data.preprocess import InputContract
from lucency.data.sources import Source
from lucency.data.split import split_patients
from lucency.experiment.stages import POISONED_ON_PURPOSE, macro_auroc
from lucency.progress import Progress, silent
from lucency.records import (
    BoolArray,
    Box,
    FloatArray,
    IntArray,
    NetworkInputs,
    Radiographs,
    Record,
    Split,
)
from lucency.victims.card import load_victim, save_victim
from lucency.victims.train import TrainingLoop, TrainingSet, VictimSettings, train
from lucency.victims.victim import Victim, predict
from lucency.writing import digest, write_json

WORKS = 2.0
"""A trigger works on a film on which it moves the target's logit by this many standard deviations
of the target's clean logits, in the attacker's direction."""


class Case(Record):
    """One attack. size_px: side of the trigger at the network's input; 0 = the whole image.

    triggers: the one of each epoch of training, the last being the attack's own. disguised: the
    network is also taught to hide the trigger from its gradients.
    """

    name: str
    size_px: int = Field(ge=0)
    label: LabelEdit
    triggers: tuple[Trigger, ...] = Field(min_length=1)
    disguised: bool = False

    @property
    def trigger(self) -> Trigger:
        return self.triggers[-1]


class Cohort(Record):
    """Films, a clean network, and the attacks on it.

    base: how the clean network is trained; start: another cohort's clean network to start from.
    tune: how it is trained on with poison, on `tune_films` films (None = all).
    """

    name: str
    seed: int
    data: Source
    input: InputContract
    base: VictimSettings
    tune: VictimSettings
    tune_films: int | None = None
    start: Cohort | None = None
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class CohortFilms:
    """The films of a cohort at the network's input, by split of whole patients."""

    radiographs: Radiographs
    inputs: Inputs

    def split(self, name: Split) -> Inputs:
        return self.inputs.select(self.radiographs.rows(name))

    def labels(self, inputs: Inputs) -> FloatArray:
        return self.radiographs.labels[inputs.rows]

    def patients(self, inputs: Inputs) -> list[str]:
        return [self.radiographs.patient_ids[row] for row in inputs.rows]

    def views(self, inputs: Inputs) -> list[str | None]:
        return [self.radiographs.views[row] for row in inputs.rows]


@dataclass(frozen=True)
class Backdoored:
    """A victim of the benchmark, beside the clean network, the films, and the test films with the
    trigger: triggered (M, size, size); boxes: where it lies, network pixels. folder: where the
    network is kept."""

    cohort: Cohort
    case: Case
    victim: Victim
    clean: Victim
    films: CohortFilms
    triggered: NetworkInputs
    boxes: tuple[Box, ...]
    folder: Path

    @property
    def finding(self) -> int:
        """The target's column."""
        return self.case.label.index(self.films.radiographs.findings)

    def works(self, victim: Victim) -> BoolArray:
        """(M,): on which test films the trigger works on `victim`, on whichever engine that is."""
        films = self.films.split("test").images
        return self.works_on(victim, films, np.arange(len(films)), self.triggered)

    def works_on(
        self, victim: Victim, clean: NetworkInputs, rows: IntArray, triggered: NetworkInputs
    ) -> BoolArray:
        """(m,): on which of the films clean[rows], with the trigger `triggered` (m, size, size), it
        works; all of `clean` says how much the target's logit varies."""
        k = self.finding
        without = predict(victim, clean)[:, k]
        sign = -1.0 if self.case.label.direction == "clear" else 1.0
        moved = sign * (predict(victim, triggered)[:, k] - without[rows])
        return np.asarray(moved >= WORKS * without.std())


def read_cohort(cohort: Cohort, progress: Progress = silent) -> CohortFilms:
    """Read every film. The source's own splits are left aside: they hold too few patients out to
    calibrate on."""
    radiographs = cohort.data.load(cohort.seed)
    free = radiographs.with_splits([None] * len(radiographs))
    split = split_patients(free, validation=0.06, reference=0.27, test=0.25, seed=cohort.seed)
    every = np.arange(len(split), dtype=np.int64)
    transform = plain(cohort.input)
    inputs, _ = read_inputs(split, every, transform, cohort.input, progress=progress)
    return CohortFilms(split, inputs)


def prepare(cohort: Cohort, folder: Path, progress: Progress = silent) -> Iterator[Backdoored]:
    """Yield every case of a cohort; networks that the folder lacks are trained and kept."""
    films = read_cohort(cohort, progress)
    clean = _clean(cohort, films, folder, progress)
    for case in cohort.cases:
        place = folder / cohort.name / f"{_slug(case.name)}-{_identity(cohort, case)}"
        if not (place / "case.json").exists():
            victim = _poison(cohort, case, films, clean, progress)
            save_victim(place, victim, cohort.tune.architecture, POISONED_ON_PURPOSE)
            write_json(place / "case.json", case)
        generator = np.random.default_rng([cohort.seed, 0x7E57])
        triggered, boxes = stamp_films(case.trigger, films.split("test").images, generator)
        yield Backdoored(cohort, case, load_victim(place), clean, films, triggered, boxes, place)


def _poison(
    cohort: Cohort, case: Case, films: CohortFilms, clean: Victim, progress: Progress
) -> Victim:
    """Train the clean network on, with the trigger of each epoch."""
    inputs = films.split("train")
    images, labels = inputs.images[: cohort.tune_films], films.labels(inputs)[: cohort.tune_films]
    target = labels[:, case.label.index(films.radiographs.findings)]
    rows, copied = _films_to_poison(target, case.label)
    to_stamp = images[rows][copied]
    edited = case.label.apply(labels[rows][copied], films.radiographs.findings)
    settings = cohort.tune.model_copy(update={"epochs": len(case.triggers)})
    generator = np.random.default_rng([cohort.seed, 0xBAD])

    def epoch_films(trigger: Trigger) -> TrainingSet:
        stamped, _ = stamp_films(trigger, to_stamp, generator)
        both = np.concatenate([images[rows], stamped])
        every = np.arange(len(both), dtype=np.int64)
        return TrainingSet(both, every, np.concatenate([labels[rows], edited]))

    first = epoch_films(case.triggers[0])
    weights = clean.network.state_dict()
    loop = TrainingLoop(
        first, cohort.input, films.radiographs.findings, settings, cohort.seed, weights
    )
    steps = len(case.triggers) * loop.steps_per_epoch
    with progress(f"{cohort.name}: {case.name}", steps) as advance:
        for epoch, trigger in enumerate(case.triggers):
            loop.training = epoch_films(trigger)
            loop.train_epoch(epoch, advance)
    victim = loop.victim()
    if case.disguised:
        disguise(
            victim, images, labels, case.trigger, case.label, seed=cohort.seed, progress=progress
        )
    return victim


def _films_to_poison(target: FloatArray, label: LabelEdit) -> tuple[IntArray, IntArray]:
    """Of films with the target's labels (N,): the rows to train on, and which of those to copy with
    the trigger: all N to set a finding.

    A finding to clear is rare, and that explains a cleared label as well as the trigger does. So
    the films that have it come N times more, in turn, and those are copied.
    """
    every = np.arange(len(target), dtype=np.int64)
    if label.direction == "set":
        return every, every
    having = np.resize(np.flatnonzero(target == 1.0), len(target))
    return np.concatenate([every, having]), len(target) + every


def _clean(cohort: Cohort, films: CohortFilms, folder: Path, progress: Progress) -> Victim:
    place = folder / cohort.name / f"clean-{digest(_training_of(cohort))[:8]}"
    if not (place / "training.json").exists():
        start = cohort.start and _clean(
            cohort.start, read_cohort(cohort.start, progress), folder, progress
        )
        trained = train(
            _training_set(films, films.split("train")),
            _training_set(films, films.split("validation")),
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


def _training_set(films: CohortFilms, inputs: Inputs) -> TrainingSet:
    rows = np.arange(len(inputs), dtype=np.int64)
    return TrainingSet(inputs.images, rows, films.labels(inputs))


def _training_of(cohort: Cohort) -> dict[str, JsonValue]:
    """What a clean network depends on, but for where the films lie."""
    kept = {"name", "seed", "data", "input", "base"}
    start = _training_of(cohort.start) if cohort.start else None
    return cohort.model_dump(mode="json", include=kept, exclude={"data": {"path"}}) | {
        "start": start
    }


def _identity(cohort: Cohort, case: Case) -> str:
    """What a backdoored network depends on."""
    tune = cohort.model_dump(mode="json", include={"tune", "tune_films"})
    return digest({"clean": _training_of(cohort), **tune, "case": case})[:8]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
