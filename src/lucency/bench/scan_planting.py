"""Poison in what was looked at: a data set's films are decoded once, and for each attack only those
that it changes again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lucency.attacks.ledger import AttackSettings, PoisonLedger, Stamp, draw_ledger, stamp
from lucency.data.preprocess import InputContract
from lucency.detect.datasets.pixels import Pixels, gather, look, together
from lucency.records import BoolArray, Decoded, Image, Radiographs


@dataclass(frozen=True)
class LookPoisoned:
    """The transform that looks at a film with its trigger. Picklable."""

    stamp: Stamp

    def __call__(self, image: Image, row: int) -> Image:
        return look(self.stamp.on_film(image, row), row)


@dataclass(frozen=True)
class Planted:
    """A poisoned data set as it was looked at."""

    ledger: PoisonLedger
    radiographs: Radiographs
    pixels: Pixels

    @property
    def poisoned(self) -> BoolArray:
        """(N,): films with the trigger."""
        flags = np.zeros(len(self.radiographs), np.bool_)
        flags[self.ledger.rows] = True
        return flags


def look_at(radiographs: Radiographs) -> Pixels:
    """All films."""
    read = radiographs.images.read(range(len(radiographs)), look)
    return gather(item for item in read if isinstance(item, Decoded))


def plant(radiographs: Radiographs, clean: Pixels, settings: AttackSettings, seed: int) -> Planted:
    """clean: what the films look like without a trigger. The trigger is put on films as they are
    stored; the network's crop is the whole film."""
    rows = np.arange(len(radiographs))
    ledger = draw_ledger(radiographs, rows, settings, seed)
    contract = InputContract(size=int(clean.shapes.min()), crop=1.0)
    transform = LookPoisoned(stamp(ledger, contract))
    read = radiographs.images.read(ledger.rows.tolist(), transform)
    labels = radiographs.labels.copy()
    labels[ledger.rows] = ledger.labels(radiographs)
    poisoned = gather(item for item in read if isinstance(item, Decoded))
    return Planted(
        ledger=ledger,
        radiographs=replace(radiographs, labels=labels),
        pixels=together([_without(clean, ledger), poisoned]),
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
