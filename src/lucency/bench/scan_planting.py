"""Poison in a training set that was looked at: for each attack only the films that it changes are
looked at again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lucency.attacks.ledger import AttackSettings, PoisonLedger, Stamp, draw_ledger, stamp
from lucency.data.arrays import ArrayImages
from lucency.data.inputs import as_stored
from lucency.data.preprocess import InputContract
from lucency.detect.datasets.pixels import Pixels, gather, look, together
from lucency.detect.datasets.specks import grey_of
from lucency.errors import DataError
from lucency.records import BoolArray, Decoded, Image, Images, Radiographs, Transform

VISIBLE = 4
"""Of 255: a trigger that changes no pixel by more is on a film, and cannot be seen on it."""


@dataclass(frozen=True)
class Triggered:
    """The transform that sees a film with its trigger. Picklable."""

    stamp: Stamp
    transform: Transform

    def __call__(self, image: Image, row: int) -> Image:
        return self.transform(self.stamp.on_film(image, row), row)


@dataclass(frozen=True)
class TriggeredImages:
    """Films of which some have a trigger."""

    images: Images
    stamp: Stamp

    def read(
        self, rows: Sequence[int], transform: Transform
    ) -> Iterator[Decoded | tuple[int, str]]:
        return self.images.read(rows, Triggered(self.stamp, transform))


@dataclass(frozen=True)
class Planted:
    """A poisoned data set, and what its films look like. poisoned (N,): films with the trigger;
    visible (N,): those of them that it changes by more than `VISIBLE`."""

    ledger: PoisonLedger
    radiographs: Radiographs
    pixels: Pixels
    poisoned: BoolArray
    visible: BoolArray


def in_memory(radiographs: Radiographs) -> Radiographs:
    """The same films, decoded. Raises DataError for films of several sizes, or that cannot be
    read."""
    films = []
    for item in radiographs.images.read(range(len(radiographs)), as_stored):
        if not isinstance(item, Decoded):
            raise DataError(f"Every film must be readable, got: {item[1]}.")
        films.append(item.image)
    if len({(film.shape, film.dtype) for film in films}) > 1:
        raise DataError(f"The films of {radiographs.name} must be of one size.")
    stacked = cast("Image", np.stack(films))
    return replace(radiographs, images=ArrayImages(stacked))


def look_at(radiographs: Radiographs) -> Pixels:
    """All films."""
    read = radiographs.images.read(range(len(radiographs)), look)
    return gather(item for item in read if isinstance(item, Decoded))


def plant(radiographs: Radiographs, clean: Pixels, settings: AttackSettings, seed: int) -> Planted:
    """clean: what the films look like without a trigger. The trigger is put on films as they are
    stored; the network's crop is the whole film."""
    ledger = draw_ledger(radiographs, np.arange(len(radiographs)), settings, seed)
    marks = stamp(ledger, InputContract(size=int(clean.shapes.min()), crop=1.0))
    images = TriggeredImages(radiographs.images, marks)
    rows = ledger.rows.tolist()
    labels = radiographs.labels.copy()
    labels[ledger.rows] = ledger.labels(radiographs)
    visible = np.zeros(len(radiographs), np.bool_)
    for before, after in zip(
        radiographs.images.read(rows, as_stored), images.read(rows, as_stored), strict=True
    ):
        if isinstance(before, Decoded) and isinstance(after, Decoded):
            change = grey_of(after.image).astype(np.int16) - grey_of(before.image)
            visible[before.index] = np.abs(change).max() > VISIBLE
    poisoned = gather(item for item in images.read(rows, look) if isinstance(item, Decoded))
    return Planted(
        ledger=ledger,
        radiographs=replace(radiographs, labels=labels, images=images),
        pixels=together([_without(clean, ledger), poisoned]),
        poisoned=np.isin(np.arange(len(radiographs)), ledger.rows),
        visible=visible,
    )


def _without(pixels: Pixels, ledger: PoisonLedger) -> Pixels:
    films = ~np.isin(pixels.rows, ledger.rows)
    specks = ~np.isin(pixels.film, ledger.rows)
    return Pixels(
        rows=pixels.rows[films],
        shapes=pixels.shapes[films],
        hashes=pixels.hashes[films],
        film=pixels.film[specks],
        boxes=pixels.boxes[specks],
        is_alone=pixels.is_alone[specks],
        contents=pixels.contents[specks],
    )
