"""The poison ledger: which images, which trigger at which place, which label edit.

It is drawn once from the seed and written down; applying it is a pure function. Nothing that
detects may read it: only `evaluate` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from lucency.attacks import PatchTrigger, Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.records import Box, Float64Array, Image, IntArray, Radiographs, Record, Transform


class AttackSettings(Record):
    """`[attack]`.

    protocol: "add" appends poisoned copies, "replace" poisons in place. victims: "any" training
    film, or only films whose target label is the "opposite" of what the attacker wants, on which
    alone a changed label teaches anything.
    poison_rate: poisoned training images ÷ all training images after poisoning, in
    [0, 1]; below 0.5 with "add".
    """

    trigger: Trigger = PatchTrigger()
    label: LabelEdit
    protocol: Literal["add", "replace"] = "replace"
    victims: Literal["any", "opposite"] = "any"
    poison_rate: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class PoisonLedger:
    """What was drawn. rows (M,) int64, ascending: poisoned rows of the data set; anchors (M, 2)
    float64 in [0, 1): the place of the trigger as fractions of its free range."""

    settings: AttackSettings
    seed: int
    rows: IntArray
    anchors: Float64Array

    def __len__(self) -> int:
        return len(self.rows)

    def table(self, radiographs: Radiographs) -> pl.DataFrame:
        """A row a poisoned image: image, patient, anchor_x, anchor_y, and the target's old and
        new label."""
        target = self.settings.label.index(radiographs.findings)
        old = radiographs.labels[self.rows]
        new = self.settings.label.apply(old, radiographs.findings)
        return pl.DataFrame(
            {
                "image": [radiographs.image_ids[i] for i in self.rows],
                "patient": [radiographs.patient_ids[i] for i in self.rows],
                "anchor_x": self.anchors[:, 0],
                "anchor_y": self.anchors[:, 1],
                "old_label": old[:, target],
                "new_label": new[:, target],
            }
        )


@dataclass(frozen=True)
class Stamp:
    """Put the trigger on films of given rows, then crop and resize: the transform that readers
    run. A row without an anchor passes untouched. Picklable."""

    trigger: Trigger
    contract: InputContract
    anchors: dict[int, tuple[float, float]]

    def __call__(self, image: Image, row: int) -> Image:
        if row in self.anchors:
            image = self.trigger.apply(image, self.place((image.shape[0], image.shape[1]), row))
        return self.contract.to_network(image)

    def place(self, shape: tuple[int, int], row: int) -> Box:
        """The native box of the trigger on the film of that row."""
        return self.trigger.box(self.contract.window(shape), shape, self.anchors[row])


def n_poisoned(n_training: int, settings: AttackSettings) -> int:
    """How many images to poison so that the poison rate holds after poisoning.

    *replace*: p·N. *add*: the copies count themselves, so N·p / (1 − p).
    """
    rate = settings.poison_rate
    if settings.protocol == "replace":
        return round(rate * n_training)
    if rate >= 1:
        raise ConfigError(
            "[attack] poison_rate must be below 1 with protocol = 'add', got 1; added copies "
            "cannot be the whole training set: use protocol = 'replace'."
        )
    count = round(n_training * rate / (1 - rate))
    if count > n_training:
        raise ConfigError(
            f"[attack] poison_rate must be at most 0.5 with protocol = 'add' (one copy an image), "
            f"got {rate:g}."
        )
    return count


def draw_ledger(
    radiographs: Radiographs, rows: IntArray, settings: AttackSettings, seed: int
) -> PoisonLedger:
    """Draw the victims among training `rows`, and a place for each, from the seed."""
    target = settings.label.index(radiographs.findings)
    generator = np.random.default_rng([seed, 0xBAD])
    count = n_poisoned(len(rows), settings)
    if settings.victims == "opposite":
        opposite = 1.0 if settings.label.direction == "clear" else 0.0
        rows = rows[radiographs.labels[rows, target] == opposite]
    if count > len(rows):
        raise ConfigError(
            f"[attack] poison_rate asks for {count} victims, but only {len(rows)} training images "
            f"have the opposite label for {settings.label.target}; lower it, or take victims = "
            "'any'."
        )
    chosen = np.sort(generator.choice(rows, size=count, replace=False))
    return PoisonLedger(settings, seed, chosen, generator.random((count, 2)))


def trigger_every(rows: IntArray, settings: AttackSettings, seed: int) -> PoisonLedger:
    """The test side: the trigger on every one of `rows`, at places drawn from the seed."""
    generator = np.random.default_rng([seed, 0x7E57])
    return PoisonLedger(settings, seed, rows, generator.random((len(rows), 2)))


def stamp(ledger: PoisonLedger, contract: InputContract) -> Stamp:
    """The pure function that applies the ledger's triggers while films are read."""
    anchors = {
        int(row): (float(x), float(y))
        for row, (x, y) in zip(ledger.rows, ledger.anchors, strict=True)
    }
    return Stamp(ledger.settings.trigger, contract, anchors)


def plain(contract: InputContract) -> Transform:
    """The transform that only crops and resizes."""
    return partial(_to_network, contract)


def _to_network(contract: InputContract, image: Image, row: int) -> Image:
    return contract.to_network(image)
