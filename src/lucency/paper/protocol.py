"""The published experiment (Nwadike et al. 2020) as a sweep, and what is wrong with it as settings.

Every pitfall that lies in the experiment is a setting, so that each can be corrected alone; those
that lie in how it was read are in the page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from lucency.sweep import SweepSettings
from lucency.sweep.settings import Case

PUBLISHED, CORRECTED = "published", "corrected"
SIZES = (1, 2, 3, 4)
PLACES = ("center", "random")
EPSILONS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of triggered films in the mixed test sets."""
NATIVE, NETWORK, CROP = 1024, 224, 0.6
"""The published geometry: native pixels, the network's, the central share of each side."""

Grid = Literal["small", "published"]


@dataclass(frozen=True)
class Pitfall:
    """correction: dotted key of the experiment -> the value that corrects it; empty if it lies in
    how the experiment was read."""

    id: str
    words: str
    remedy: str
    correction: dict[str, JsonValue]


PITFALLS = (
    Pitfall(
        "P1",
        "The resize eats the trigger: nearest neighbours leave nothing of a centred 1 or 2 px.",
        "Resize by area; measure survival at the network's input.",
        {"input.resize": "area"},
    ),
    Pitfall(
        "P2",
        "Micro AUROC has a high floor: the prevalences alone reach it.",
        "Macro AUROC with intervals; micro beside its floor.",
        {},
    ),
    Pitfall(
        "P3",
        "Categorical cross-entropy on sigmoids has no gradient on films without a finding.",
        "Binary cross-entropy on logits.",
        {"victim.loss": "bce"},
    ),
    Pitfall(
        "P4",
        "Success above 0.6 and 0.9 is not calibrated, and the clean model is not asked.",
        "95 % specificity on clean validation films, beside the clean model.",
        {},
    ),
    Pitfall(
        "P5",
        "Poisoned validation films choose the weights.",
        "Clean validation films.",
        {"attack.validation": "clean"},
    ),
    Pitfall(
        "P6",
        "The same first films are poisoned under every seed.",
        "Drawn from the seed.",
        {"attack.victims.by": "image"},
    ),
    Pitfall(
        "P7",
        "The one-hot label erases the 13 other findings as well.",
        "Set the target, keep the others.",
        {"attack.label.kind": "set"},
    ),
    Pitfall(
        "P8",
        "A cache freezes the augmentation; rotation smears the trigger.",
        "Draw it anew in every epoch; measure survival after it.",
        {"victim.augment.frozen": False},
    ),
    Pitfall(
        "P9",
        "Grad-CAM was taken through a network without its last block, of the sigmoid.",
        "Gradients of the logit through the network itself.",
        {},
    ),
    Pitfall(
        "P10",
        "A cell of 7 × 7 covers 32 × 32 px.",
        "Attribution at the input's resolution; pointing is scored.",
        {},
    ),
)


def experiment(data: Path | None) -> dict[str, JsonValue]:
    """The published experiment: on ChestX-ray14 under `data`, or on synthetic films."""
    name = "phantom.toml" if data is None else "nih.toml"
    table: dict[str, JsonValue] = tomllib.loads(
        (resources.files("lucency") / "paper" / name).read_text(encoding="utf-8")
    )
    if data is not None:
        table["data"] = {"source": "nih", "path": str(data.absolute())}
    return table


def correction(ids: Collection[str]) -> dict[str, JsonValue]:
    """The settings that correct these pitfalls."""
    settings: dict[str, JsonValue] = {}
    for pitfall in PITFALLS:
        if pitfall.id in ids:
            settings |= pitfall.correction
    return settings


def in_settings() -> tuple[str, ...]:
    """The pitfalls that are settings."""
    return tuple(p.id for p in PITFALLS if p.correction)


def main_sweep(data: Path | None, grid: Grid, corrected: Collection[str]) -> SweepSettings:
    """Trigger size × place × protocol × rate × seed, as published and corrected."""
    rates = (0.05, 0.2) if grid == "small" else (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
    protocols = ("replace",) if grid == "small" else ("add", "replace")
    cases = [
        Case(
            name=f"{variant}, {protocol} {share:g}",
            settings=settings
            | {"attack.protocol": protocol, "attack.poison_rate": true_rate(protocol, share)},
        )
        for variant, settings in ((PUBLISHED, {}), (CORRECTED, correction(corrected)))
        for protocol in protocols
        for share in rates
    ]
    return SweepSettings(
        name=f"{experiment(data)['name']}: the grid",
        seeds=_seeds(grid),
        experiment=experiment(data),
        cases=tuple(cases),
        grid={"attack.trigger.size_px": SIZES, "attack.trigger.place": PLACES},
    )


def pitfall_sweep(data: Path | None, grid: Grid) -> SweepSettings:
    """As published, with one pitfall corrected at a time, and with all: 4 px at the centre, of
    which 4 px are left."""
    chosen: Sequence[tuple[str, Collection[str]]] = (
        (PUBLISHED, ()),
        *((f"{PUBLISHED} without {id}", (id,)) for id in in_settings()),
        (CORRECTED, in_settings()),
    )
    fixed: dict[str, JsonValue] = {
        "attack.protocol": "replace",
        "attack.poison_rate": 0.2,
        "attack.trigger.size_px": 4,
        "attack.trigger.place": "center",
    }
    return SweepSettings(
        name=f"{experiment(data)['name']}: one pitfall at a time",
        seeds=_seeds(grid),
        experiment=experiment(data),
        cases=tuple(Case(name=name, settings=fixed | correction(ids)) for name, ids in chosen),
        keep_models=True,
    )


def true_rate(protocol: str, share: float) -> float:
    """The published share f of the training films as a poison rate: f, or f ÷ (1 + f) where copies
    are appended."""
    return share / (1 + share) if protocol == "add" else share


def _seeds(grid: Grid) -> tuple[int, ...]:
    return (0, 1) if grid == "small" else (0, 1, 2, 3)
