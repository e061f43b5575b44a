"""The films of a run: read once clean, and again with the trigger where the ledger says so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lucency.attacks.ledger import PoisonLedger, draw_ledger, plain, stamp, trigger_every
from lucency.data.inputs import Inputs, read_inputs
from lucency.data.preprocess import InputContract
from lucency.data.split import split_patients
from lucency.errors import ConfigError, DataError
from lucency.experiment.preflight import check_trigger
from lucency.experiment.settings import ExperimentSettings
from lucency.progress import Progress
from lucency.records import Box, FloatArray, Radiographs, Rejected, Split
from lucency.victims.train import TrainingSet


@dataclass(frozen=True)
class Films:
    """All films as network inputs.

    clean: every readable film of the data set. poisoned: the ledger's, with the trigger, in its
    order. triggered: the test films with the trigger.
    """

    radiographs: Radiographs
    contract: InputContract
    clean: Inputs
    ledger: PoisonLedger
    poisoned: Inputs
    test_ledger: PoisonLedger
    triggered: Inputs
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

    def trigger_boxes(self) -> tuple[list[Box], list[Box | None]]:
        """Where the trigger lies on each triggered test film: native pixels, and network pixels
        (None where the preprocessing leaves nothing of it)."""
        transform = stamp(self.test_ledger, self.contract)
        native, network = [], []
        for i, row in enumerate(self.triggered.rows):
            height, width = (int(v) for v in self.triggered.native_shapes[i])
            box = transform.place((height, width), int(row))
            native.append(box)
            survives = not np.array_equal(self.triggered.images[i], self.test.images[i])
            network.append(self.contract.to_network_box(box, (height, width)) if survives else None)
        return native, network

    def training_set(self, *, poisoned: bool) -> TrainingSet:
        """The training films; in the poisoned set the ledger's replace or join theirs."""
        radiographs, attack = self.radiographs, self.ledger.settings
        clean = self.clean.select(radiographs.rows("train"))
        rows = np.arange(len(clean), dtype=np.int64)
        labels = radiographs.labels[clean.rows]
        if not poisoned:
            return TrainingSet(clean.images, rows, labels)
        edited = attack.label.apply(radiographs.labels[self.poisoned.rows], radiographs.findings)
        if attack.protocol == "replace":
            rows = rows[~np.isin(clean.rows, self.poisoned.rows)]
        added = len(clean) + np.arange(len(self.poisoned), dtype=np.int64)
        return TrainingSet(
            np.concatenate([clean.images, self.poisoned.images]),
            np.concatenate([rows, added]),
            np.concatenate([labels[rows], edited]),
        )

    def validation_set(self) -> TrainingSet:
        """Clean films with true labels: the attack must not choose the model (pitfall P5)."""
        inputs = self.clean.select(self.radiographs.rows("validation"))
        return TrainingSet(
            inputs.images,
            np.arange(len(inputs), dtype=np.int64),
            self.radiographs.labels[inputs.rows],
        )

    def _split(self, split: Split) -> Inputs:
        return self.clean.select(self.radiographs.rows(split))


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


def read_films(settings: ExperimentSettings, radiographs: Radiographs, progress: Progress) -> Films:
    """Read every film once, draw the ledger among those that can be read, read its victims and the
    test films again with the trigger."""
    contract, attack, seed = settings.input, settings.attack, settings.seed
    everything = np.arange(len(radiographs), dtype=np.int64)
    clean, rejected = read_inputs(
        radiographs, everything, plain(contract), contract, progress=progress
    )
    check_trigger(settings, clean)
    readable = set(clean.rows.tolist())
    training, test = (
        np.array([r for r in radiographs.rows(s) if int(r) in readable], dtype=np.int64)
        for s in ("train", "test")
    )
    ledger = draw_ledger(radiographs, training, attack, seed)
    test_ledger = trigger_every(test, attack, seed)
    if len(ledger) == 0:
        raise ConfigError(
            f"[attack] poison_rate must poison at least one of the {len(training)} training "
            f"images, got {attack.poison_rate:g}; the clean model is trained beside in any case."
        )
    poisoned, lost = read_inputs(
        radiographs, ledger.rows, stamp(ledger, contract), contract, progress=progress
    )
    triggered, lost_too = read_inputs(
        radiographs, test, stamp(test_ledger, contract), contract, progress=progress
    )
    if lost or lost_too:
        raise DataError(
            f"{(lost + lost_too)[0].image} could be read at first and not a second time; the data "
            "set must not change during a run."
        )
    return Films(
        radiographs,
        contract,
        clean,
        ledger,
        poisoned,
        test_ledger,
        triggered,
        (*radiographs.rejected, *rejected),
    )
