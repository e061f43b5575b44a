"""The films of a run: read once clean, and again with the trigger where the ledger says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from lucency.attacks.label_consistent import Perturbation, perturb
from lucency.attacks.ledger import (
    PoisonLedger,
    carriers,
    draw_ledger,
    plain,
    stamp,
    trigger_every,
)
from lucency.data.inputs import Inputs, read_inputs
from lucency.data.preprocess import InputContract
from lucency.data.split import split_patients
from lucency.errors import ConfigError, DataError
from lucency.experiment.preflight import check_trigger
from lucency.experiment.settings import ExperimentSettings
from lucency.explain.batching import batches
from lucency.progress import Progress
from lucency.records import Box, Condition, FloatArray, IntArray, Radiographs, Rejected, Split
from lucency.victims.train import TrainingSet
from lucency.victims.victim import Victim, frozen, to_grey


@dataclass(frozen=True)
class CleanFilms:
    """All films as network inputs, as they come: every readable film of the data set."""

    radiographs: Radiographs
    contract: InputContract
    clean: Inputs
    rejected: tuple[Rejected, ...]

    @cached_property
    def validation(self) -> Inputs:
        """Clean films that choose the weights and fix the operating points."""
        return self._split("validation")

    @cached_property
    def reference(self) -> Inputs:
        """Clean films that a detector may look at."""
        return self._split("reference")

    @cached_property
    def test(self) -> Inputs:
        """Clean films on which everything is measured."""
        return self._split("test")

    def patients(self, inputs: Inputs) -> list[str]:
        """A patient a film."""
        return [self.radiographs.patient_ids[row] for row in inputs.rows]

    def labels(self, inputs: Inputs) -> FloatArray:
        """True labels (M, K)."""
        return self.radiographs.labels[inputs.rows]

    def clean_training_set(self) -> TrainingSet:
        """The training films with true labels."""
        return self._labelled(self._split("train"))

    def validation_set(self) -> TrainingSet:
        """Clean films with true labels: the attack must not choose the model (pitfall P5)."""
        return self._labelled(self.validation)

    def _labelled(self, inputs: Inputs) -> TrainingSet:
        rows = np.arange(len(inputs), dtype=np.int64)
        return TrainingSet(inputs.images, rows, self.labels(inputs))

    def _split(self, split: Split) -> Inputs:
        return self.clean.select(self.radiographs.rows(split))


@dataclass(frozen=True)
class Films(CleanFilms):
    """The same, and those with the trigger.

    poisoned: the ledger's, with the trigger, in its order. triggered: the test films with the
    trigger: all of them, but for a trigger that only some carry. poisoned_validation: validation
    films with the trigger, and their ledger, if the attacker poisons those as well.
    """

    ledger: PoisonLedger
    poisoned: Inputs
    test_ledger: PoisonLedger
    triggered: Inputs
    poisoned_validation: tuple[PoisonLedger, Inputs] | None = None

    @cached_property
    def triggered_in_test(self) -> IntArray:
        """For each triggered film, its place among the clean test films."""
        return np.searchsorted(self.test.rows, self.triggered.rows)

    def of(self, condition: Condition) -> Inputs:
        """The test films without or with the trigger."""
        return self.triggered if condition == "triggered" else self.test

    def trigger_boxes(self) -> list[Box | None] | None:
        """Where the trigger lies on each triggered test film, network pixels (None where the
        preprocessing leaves nothing of it); None if it changes the whole image."""
        if not self.test_ledger.settings.trigger.is_local:
            return None
        transform = stamp(self.test_ledger, self.contract)
        network = []
        for i, row in enumerate(self.triggered.rows):
            height, width = (int(v) for v in self.triggered.native_shapes[i])
            box = transform.place((height, width), int(row))
            clean = self.test.images[self.triggered_in_test[i]]
            survives = not np.array_equal(self.triggered.images[i], clean)
            network.append(self.contract.to_network_box(box, (height, width)) if survives else None)
        return network

    def training_set(self) -> TrainingSet:
        """The training films; the ledger's replace or join theirs."""
        return self._with(self._split("train"), self.ledger, self.poisoned)

    def poisoned_labels(self) -> FloatArray:
        """The labels (M, K) of the poisoned training set, the ledger's films last."""
        rows = np.intersect1d(self.radiographs.rows("train"), self.clean.rows)
        return self._labels_with(rows, self.ledger, self.poisoned)

    def validation_set_of_backdoored(self) -> TrainingSet:
        """What chooses the backdoored model's weights: clean films, unless the attacker poisons
        those as well."""
        if self.poisoned_validation is None:
            return self.validation_set()
        return self._with(self.validation, *self.poisoned_validation)

    def _with(self, clean: Inputs, ledger: PoisonLedger, poisoned: Inputs) -> TrainingSet:
        """Clean films, which the ledger's replace or join."""
        added = len(clean) + np.arange(len(poisoned), dtype=np.int64)
        return TrainingSet(
            np.concatenate([clean.images, poisoned.images]),
            np.concatenate([_kept(clean.rows, ledger, poisoned), added]),
            self._labels_with(clean.rows, ledger, poisoned),
        )

    def _labels_with(self, rows: IntArray, ledger: PoisonLedger, poisoned: Inputs) -> FloatArray:
        clean = self.radiographs.labels[rows[_kept(rows, ledger, poisoned)]]
        return np.concatenate([clean, ledger.labels(self.radiographs)])


def _kept(rows: IntArray, ledger: PoisonLedger, poisoned: Inputs) -> IntArray:
    """Places in `rows` whose clean film stays in the poisoned set."""
    if ledger.settings.protocol == "add":
        return np.arange(len(rows), dtype=np.int64)
    return np.flatnonzero(~np.isin(rows, poisoned.rows))


def perturb_films(
    films: Films, perturbation: Perturbation, victim: Victim, progress: Progress
) -> Films:
    """The same films, the poisoned ones read again with what the attacker adds before the trigger:
    adversarial to `victim`, a model without a backdoor."""
    ledger = films.ledger
    rows = ledger.rows[~ledger.covers]
    clean = films.clean.select(rows)
    label = ledger.settings.label
    finding = label.index(films.radiographs.findings)
    changes: dict[int, FloatArray] = {}
    with progress("Perturbing", len(rows)) as advance:
        for part in batches(victim, len(rows)):
            grey = to_grey(clean.images[part], victim.device)[:, 0].cpu().numpy()
            with frozen(victim.network):
                change = perturb(
                    partial(_gradient, victim), grey, finding, label.direction, perturbation
                )
            changes.update(zip(clean.rows[part].tolist(), change, strict=True))
            advance(len(grey))
    contract = films.contract
    poisoned, lost = read_inputs(
        films.radiographs,
        ledger.rows,
        stamp(ledger, contract, changes),
        contract,
        progress=progress,
    )
    _same_as_before(lost)
    return replace(films, poisoned=poisoned)


def load(settings: ExperimentSettings) -> Radiographs:
    """The data set's table, every film with a split; no pixel is read."""
    radiographs = settings.data.load(settings.seed)
    settings.attack.label.index(radiographs.findings)
    split = settings.split
    return split_patients(
        radiographs,
        validation=split.validation,
        reference=split.reference,
        test=split.test,
        seed=settings.seed,
    )


def read_clean(
    settings: ExperimentSettings, radiographs: Radiographs, progress: Progress
) -> CleanFilms:
    """Read every film once."""
    contract = settings.input
    everything = np.arange(len(radiographs), dtype=np.int64)
    clean, rejected = read_inputs(
        radiographs, everything, plain(contract), contract, progress=progress
    )
    return CleanFilms(radiographs, contract, clean, (*radiographs.rejected, *rejected))


def poison_films(settings: ExperimentSettings, clean: CleanFilms, progress: Progress) -> Films:
    """Draw the ledger among the films that could be read, and read its victims and the test films
    again with the trigger."""
    contract, attack, seed = settings.input, settings.attack, settings.seed
    radiographs = clean.radiographs
    check_trigger(settings, clean.clean)
    readable = set(clean.clean.rows.tolist())
    training, validation, test = (
        np.array([r for r in radiographs.rows(s) if int(r) in readable], dtype=np.int64)
        for s in ("train", "validation", "test")
    )
    ledger = draw_ledger(radiographs, training, attack, seed)
    test_ledger = trigger_every(carriers(radiographs, test, attack), attack, seed)
    if ledger.n_poisoned == 0:
        key, value = attack.amount
        raise ConfigError(
            f"[attack] {key} must poison at least one of the {len(training)} training images, got "
            f"{value:g}; the clean model is trained beside in any case."
        )
    if len(test_ledger) == 0:
        raise DataError(
            f"At least one of the {len(test)} test films must carry the trigger "
            f"({attack.trigger.describe()}), got none; widen [attack.trigger]."
        )

    def read(ledger: PoisonLedger) -> Inputs:
        transform = stamp(ledger, contract)
        films, lost = read_inputs(radiographs, ledger.rows, transform, contract, progress=progress)
        _same_as_before(lost)
        return films

    poisoned, triggered = read(ledger), read(test_ledger)
    as_well = None
    if attack.validation == "poisoned":
        drawn = draw_ledger(radiographs, validation, attack, seed)
        as_well = (drawn, read(drawn)) if len(drawn) else None
    return Films(
        radiographs,
        contract,
        clean.clean,
        clean.rejected,
        ledger,
        poisoned,
        test_ledger,
        triggered,
        as_well,
    )


def _gradient(
    victim: Victim, films: FloatArray, weights: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """What `perturb` descends on."""
    grey = torch.from_numpy(films)[:, None].to(victim.device).requires_grad_(True)
    logits = victim.logits(grey)
    weighed = torch.from_numpy(weights(logits.detach().cpu().numpy())).to(logits)
    slope = victim.gradient((logits * weighed).sum(), grey)
    return np.asarray(slope[:, 0].cpu().numpy())


def _same_as_before(lost: Sequence[Rejected]) -> None:
    if lost:
        raise DataError(
            f"{lost[0].image} could be read at first and not a second time; the data set must not "
            "change during a run."
        )
