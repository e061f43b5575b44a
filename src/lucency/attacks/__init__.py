"""What an attacker does to a training set: triggers, label edits, and the ledger of both.

A new trigger is one file and one line in `Trigger`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator

from lucency.attacks.blended import BlendedTrigger
from lucency.attacks.burned_text import TextTrigger
from lucency.attacks.cofindings import CofindingsTrigger
from lucency.attacks.dct import DctTrigger
from lucency.attacks.fourier import FourierTrigger
from lucency.attacks.marker import MarkerTrigger
from lucency.attacks.patch import PatchTrigger
from lucency.attacks.scaling import ScalingTrigger
from lucency.attacks.sinusoid import SinusoidTrigger
from lucency.attacks.warp import WarpTrigger


def _patch_unless_named(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {"kind": "patch", **_with_tuples(settings)}


def _with_tuples(value: Any) -> Any:
    # What runs before a union hands on a JSON array as a list, and a strict tuple refuses it.
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(_with_tuples(inner) for inner in value) if isinstance(value, list) else value


Trigger = Annotated[
    PatchTrigger
    | BlendedTrigger
    | SinusoidTrigger
    | WarpTrigger
    | FourierTrigger
    | DctTrigger
    | MarkerTrigger
    | TextTrigger
    | ScalingTrigger
    | CofindingsTrigger,
    Discriminator("kind"),
    BeforeValidator(_patch_unless_named),
]
"""Settings of any trigger, told apart by `kind`; "patch" where none is named.

Each is a frozen record with `box(window, shape, anchor) -> Box` (its place on a film),
`footprint(shape, box) -> (H, W) bool`, `apply(image, box) -> Image` (pure), `describe()` and
`describe_place()`; and with what `BaseTrigger` says of most.
"""

__all__ = [
    "BlendedTrigger",
    "CofindingsTrigger",
    "DctTrigger",
    "FourierTrigger",
    "MarkerTrigger",
    "PatchTrigger",
    "ScalingTrigger",
    "SinusoidTrigger",
    "TextTrigger",
    "Trigger",
    "WarpTrigger",
]
