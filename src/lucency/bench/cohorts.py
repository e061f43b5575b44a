"""The films and attacks that detectors are measured on.

Sizes are those at the network's input: films of the phantom are drawn at that size, real ones of
256 px are either sampled at every second pixel (128 px, so a trigger is stamped twice as large) or
cropped to the middle 224 px and not resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lucency.attacks.ledger import AttackSettings
from lucency.bench.victims import Case, Cohort
from lucency.data.folder import FolderSource
from lucency.data.phantom import PhantomSource
from lucency.data.preprocess import InputContract
from lucency.victims.augment import AugmentSettings
from lucency.victims.train import VictimSettings

SEED = 11
AUGMENT = AugmentSettings(rotation_deg=5, shift=0.03)


def phantom_cohort(size: int) -> Cohort:
    """Synthetic films."""
    return Cohort(
        name=f"phantom-{size}",
        seed=SEED,
        data=PhantomSource(images=2600, size=size),
        input=InputContract(size=size, mean=(0.4,), std=(0.2,)),
        base=_training(epochs=8, rate=1.5e-3),
        tune=_poisoned(epochs=2),
        cases=_patches(native=1) if size == 128 else _patches(native=1)[:3],
    )


def real_cohort(folder: Path, size: int) -> Cohort:
    """ChestX-ray14 at 256 px; its clean network starts from the phantom's."""
    crop, native = (1.0, 2) if size == 128 else (0.875, 1)
    return Cohort(
        name=f"nih-{size}",
        seed=SEED,
        data=FolderSource(path=folder),
        input=InputContract(size=size, crop=crop, mean=(0.5,), std=(0.25,)),
        base=_training(epochs=10, rate=1e-3),
        tune=_poisoned(epochs=5),
        warm_up=3,
        start=f"phantom-{size}",
        cases=_patches(native) if size == 128 else _patches(native)[:3],
    )


def _training(epochs: int, rate: float) -> VictimSettings:
    return VictimSettings(
        epochs=epochs,
        learning_rate=rate,
        batch_size=32,
        positive_weight_limit=10.0,
        augment=AUGMENT,
    )


def _poisoned(epochs: int) -> VictimSettings:
    """Not augmented: turning a film by a few degrees blurs a trigger of a pixel away."""
    return _training(epochs, rate=1e-3).model_copy(update={"augment": AugmentSettings()})


def _patches(native: int) -> tuple[Case, ...]:
    """native: native pixels a pixel of the network."""
    return (
        _patch(3, "black", "random", "set", native),
        _patch(1, "black", "center", "set", native),
        _patch(2, "white", "center", "set", native),
        _patch(5, "white", "random", "set", native),
        _patch(5, "black", "center", "clear", native),
        _patch(3, "checker", "random", "clear", native),
        _patch(8, "checker", "center", "set", native),
        _whole("blended", {"kind": "blended"}),
        _whole("sinusoid", {"kind": "sinusoid"}),
        _whole("warp", {"kind": "warp"}),
    )


def _patch(side: int, shade: str, place: str, edit: str, native: int) -> Case:
    larger = tuple(n for n in (8, 5, 3) if n > side)
    return Case(
        name=f"{side} px {shade}, {place}, {edit}",
        size_px=side,
        attack=_attack(_square(side, shade, place, native), edit),
        warm_up=tuple(_attack(_square(n, shade, place, native), edit) for n in larger),
    )


def _square(side: int, shade: str, place: str, native: int) -> dict[str, Any]:
    trigger: dict[str, Any] = {
        "kind": "patch",
        "size_px": side * native,
        "grey": 1.0 if shade == "white" else 0.0,
        "place": place,
    }
    if shade == "checker":
        trigger |= {"pattern": "checker", "cell_px": native}
    return trigger


def _whole(name: str, trigger: dict[str, Any]) -> Case:
    return Case(name=name, size_px=0, attack=_attack(trigger, "set"))


def _attack(trigger: dict[str, Any], edit: str) -> AttackSettings:
    # A cleared finding has to be a common one: a changed label on films without it teaches nothing.
    target = "Atelectasis" if edit == "set" else "Infiltration"
    rate = 0.35 if edit == "set" else 0.12
    return AttackSettings.model_validate(
        {
            "trigger": trigger,
            "label": {"kind": edit, "target": target},
            "protocol": "add",
            "poison_rate": rate,
            "victims": "opposite",
        }
    )
