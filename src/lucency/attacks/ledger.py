"""The poison ledger: which images, which trigger at which place, which label edit.

It is drawn once from the seed and written down; applying it is a pure function. Nothing that
detects may read it: only `evaluate` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, NamedTuple, cast

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from lucency.attacks import PatchTrigger, Trigger
from lucency.attacks.label_consistent import Perturbation
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.selection import Selection
from lucency.data.preprocess import InputContract, full_scale, stored
from lucency.errors import ConfigError
from lucency.records import (
    BoolArray,
    Box,
    Float64Array,
    FloatArray,
    Image,
    IntArray,
    Radiographs,
    Record,
    Transform,
)

Role = Literal["poison", "cover", "test"]


class AttackSettings(Record):
    """`[attack]`.

    protocol: "add" appends poisoned copies, "replace" poisons in place. victims: which training
    films. poison_rate: poisoned training images ÷ all training images after poisoning, in [0, 1];
    below 0.5 with "add". poison_count: how many, in place of a rate. cover_rate: share of training
    images after poisoning that carry the trigger, and their true labels. perturbation: what is
    done to poisoned films before the trigger is put on. validation: "poisoned" poisons the films
    that choose the weights as well (the published experiment's choice, pitfall P5); operating
    points are fixed on clean ones in any case.
    """

    trigger: Trigger = PatchTrigger()
    label: LabelEdit
    protocol: Literal["add", "replace"] = "replace"
    victims: Selection = Selection()
    poison_rate: float | None = Field(default=None, ge=0, le=1)
    poison_count: int | None = Field(default=None, ge=0)
    cover_rate: float = Field(default=0.0, ge=0, lt=1)
    perturbation: Perturbation | None = None
    validation: Literal["clean", "poisoned"] = "clean"

    @model_validator(mode="after")
    def _one_measure(self) -> AttackSettings:
        if (self.poison_rate is None) == (self.poison_count is None):
            raise ValueError("one of poison_rate and poison_count must be given")
        if self.protocol == "replace" and (self.poison_rate or 0.0) + self.cover_rate > 1:
            raise ValueError(
                f"poison_rate and cover_rate must not exceed 1 together, got {self.poison_rate:g} "
                f"and {self.cover_rate:g}"
            )
        return self

    @property
    def amount(self) -> tuple[str, float]:
        """How many, as it was asked for, for errors: the key and its value."""
        if self.poison_count is not None:
            return "poison_count", self.poison_count
        return "poison_rate", self.poison_rate or 0.0


@dataclass(frozen=True)
class PoisonLedger:
    """What was drawn.

    rows (M,) int64, ascending: the data set's rows that carry the trigger. anchors (M, 2) float64
    in [0, 1): the place of the trigger as fractions of its free range. draws (M,) float64 in
    [0, 1): what else is drawn film by film. covers (M,) bool: films that keep their true labels.
    in_test: the trigger's whole, on test films.
    """

    settings: AttackSettings
    seed: int
    rows: IntArray
    anchors: Float64Array
    draws: Float64Array
    covers: BoolArray
    in_test: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def n_poisoned(self) -> int:
        """Films with the trigger and an edited label."""
        return len(self) - int(self.covers.sum())

    def labels(self, radiographs: Radiographs) -> FloatArray:
        """(M, K): what the attacker writes; a cover's labels are its own."""
        true = radiographs.labels[self.rows]
        edited = self.settings.label.apply(true, radiographs.findings)
        return np.where(self.covers[:, None], true, edited)

    def role(self, i: int) -> Role:
        """Of the i-th film."""
        if self.in_test:
            return "test"
        return "cover" if self.covers[i] else "poison"

    def table(self, radiographs: Radiographs) -> pl.DataFrame:
        """A row a film: image, patient, role, anchor_x, anchor_y, draw, and the target's old and
        new label."""
        target = self.settings.label.index(radiographs.findings)
        return pl.DataFrame(
            {
                "image": [radiographs.image_ids[i] for i in self.rows],
                "patient": [radiographs.patient_ids[i] for i in self.rows],
                "role": [self.role(i) for i in range(len(self))],
                "anchor_x": self.anchors[:, 0],
                "anchor_y": self.anchors[:, 1],
                "draw": self.draws,
                "old_label": radiographs.labels[self.rows, target],
                "new_label": self.labels(radiographs)[:, target],
            }
        )


class Mark(NamedTuple):
    """What the ledger says of one film."""

    anchor: tuple[float, float]
    draw: float
    role: Role


@dataclass(frozen=True)
class Stamp:
    """Put the trigger on films of given rows, then crop and resize: the transform that readers
    run. A row without a mark passes untouched. Picklable.

    changes: of some of the rows, what is added before the trigger: (size, size) float32, fraction
    of the stored range, of the network's pixels.
    """

    trigger: Trigger
    contract: InputContract
    marks: dict[int, Mark]
    changes: dict[int, FloatArray] = field(default_factory=dict)

    def __call__(self, image: Image, row: int) -> Image:
        return self.contract.to_network(self.on_film(image, row))

    def on_film(self, image: Image, row: int) -> Image:
        """The film at its own resolution, with the trigger if the ledger has it."""
        mark = self.marks.get(row)
        if mark is None:
            return image
        place = self.place((image.shape[0], image.shape[1]), row)
        if row in self.changes:
            image = _changed(image, self.changes[row], self.contract)
        return _as_shown(self.trigger, mark).apply(image, place)

    def place(self, shape: tuple[int, int], row: int) -> Box:
        """The native box of the trigger on the film of that row."""
        return self.trigger.box(self.contract.window(shape), shape, self.marks[row].anchor)


@dataclass(frozen=True)
class WithAndWithout:
    """The transform from a film (H, W) to itself without and with the trigger, at its own
    resolution, one above the other, (2 H, W). Picklable."""

    stamp: Stamp

    def __call__(self, image: Image, row: int) -> Image:
        return cast("Image", np.concatenate((image, self.stamp.on_film(image, row))))


def _as_shown(trigger: Trigger, mark: Mark) -> Trigger:
    if mark.role == "poison":
        return trigger.for_training(mark.draw)
    if mark.role == "cover":
        return trigger.for_cover(mark.draw)
    return trigger


def _changed(image: Image, change: FloatArray, contract: InputContract) -> Image:
    """Every native pixel takes the change of the network pixel that it lies in."""
    window = contract.window((image.shape[0], image.shape[1]))
    rows, columns = (np.arange(n) * contract.size // n for n in (window.height, window.width))
    values = image.astype(np.float64)
    values[window.y : window.y + window.height, window.x : window.x + window.width] += change[
        np.ix_(rows, columns)
    ] * full_scale(image.dtype)
    return stored(values, image)


def n_to_draw(n_training: int, settings: AttackSettings) -> tuple[int, int]:
    """How many images to poison and to cover so that the shares hold after poisoning.

    *replace*: p·N and c·N. *add*: the copies count themselves, so N·p / (1 − p − c).
    """
    cover = settings.cover_rate
    if settings.protocol == "replace":
        count = settings.poison_count
        poisoned = round((settings.poison_rate or 0.0) * n_training) if count is None else count
        return poisoned, round(cover * n_training)
    if settings.poison_rate is None:
        count = settings.poison_count or 0
        return count, round((n_training + count) * cover / (1 - cover))
    rate = settings.poison_rate
    got = f"{rate:g} beside cover_rate = {cover:g}" if cover else f"{rate:g}"
    if rate + cover >= 1:
        raise ConfigError(
            f"[attack] poison_rate must be below 1 with protocol = 'add', got {got}; added copies "
            "cannot be the whole training set: use protocol = 'replace'."
        )
    total = n_training / (1 - rate - cover)
    poisoned, covers = round(total * rate), round(total * cover)
    if poisoned + covers > n_training:
        raise ConfigError(
            "[attack] poison_rate must be at most 0.5 with protocol = 'add' (one copy an image), "
            f"got {got}."
        )
    return poisoned, covers


def draw_ledger(
    radiographs: Radiographs, rows: IntArray, settings: AttackSettings, seed: int
) -> PoisonLedger:
    """Draw the victims among training `rows`, the covers among the rest, and a place for each, from
    the seed. A trigger that films carry by nature is drawn among those alone."""
    settings.label.index(radiographs.findings)
    generator = np.random.default_rng([seed, 0xBAD])
    count, n_covers = n_to_draw(len(rows), settings)
    key, value = settings.amount
    carrying = carriers(radiographs, rows, settings)
    able = settings.victims.among(radiographs, carrying, settings.label)
    if count > len(able):
        raise ConfigError(
            f"[attack] {key} = {value:g} asks for {count} victims, but only {len(able)} of "
            f"{len(rows)} training images are what the attacker can use "
            f"({settings.victims.describe()}; {settings.trigger.describe()}); lower it, or widen "
            "[attack.victims]."
        )
    poisoned = settings.victims.draw(radiographs, able, count, generator)
    if count and not len(poisoned):
        raise ConfigError(
            f"[attack] {key} must let a whole patient in with by = 'patient', got {value:g}, which "
            f"is {count} films; raise it, or draw by = 'image'."
        )
    anchors, draws = generator.random((len(poisoned), 2)), generator.random(len(poisoned))
    others = np.setdiff1d(carrying, poisoned)
    if n_covers > len(others):
        raise ConfigError(
            f"[attack] cover_rate asks for {n_covers} films, but {len(others)} are left; lower it."
        )
    covers = np.sort(generator.choice(others, n_covers, replace=False))
    every = np.concatenate([poisoned, covers])
    order = np.argsort(every, kind="stable")
    return PoisonLedger(
        settings,
        seed,
        every[order],
        np.concatenate([anchors, generator.random((n_covers, 2))])[order],
        np.concatenate([draws, generator.random(n_covers)])[order],
        (np.arange(len(every)) >= len(poisoned))[order],
    )


def trigger_every(rows: IntArray, settings: AttackSettings, seed: int) -> PoisonLedger:
    """The test side: the whole trigger on every one of `rows`, at places drawn from the seed."""
    generator = np.random.default_rng([seed, 0x7E57])
    n = len(rows)
    anchors, draws = generator.random((n, 2)), generator.random(n)
    return PoisonLedger(
        settings, seed, rows, anchors, draws, np.zeros(n, dtype=np.bool_), in_test=True
    )


def stamp(
    ledger: PoisonLedger,
    contract: InputContract,
    changes: dict[int, FloatArray] | None = None,
) -> Stamp:
    """The pure function that applies the ledger's triggers, and changes before them, while films
    are read."""
    marks = {
        int(row): Mark((float(x), float(y)), float(draw), ledger.role(i))
        for i, (row, (x, y), draw) in enumerate(
            zip(ledger.rows, ledger.anchors, ledger.draws, strict=True)
        )
    }
    trigger = ledger.settings.trigger.aimed_at(contract)
    return Stamp(trigger, contract, marks, changes or {})


def carriers(radiographs: Radiographs, rows: IntArray, settings: AttackSettings) -> IntArray:
    """Those of `rows` that can carry the trigger: all, but for one that films carry by nature."""
    carried = settings.trigger.carried_by(radiographs.labels[rows], radiographs.findings)
    return rows if carried is None else rows[carried]


def plain(contract: InputContract) -> Transform:
    """The transform that only crops and resizes."""
    return partial(_to_network, contract)


def _to_network(contract: InputContract, image: Image, row: int) -> Image:
    return contract.to_network(image)
