"""What an attacker does to a training set: triggers, label edits, and the ledger of both.

A new trigger is one file and one line in `Trigger`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator

from lucency.attacks.blended import BlendedTrigger
from lucency.attacks.patch import PatchTrigger
from lucency.attacks.sinusoid import SinusoidTrigger
from lucency.attacks.warp import WarpTrigger


def _patch_unless_named(settings: Any) -> Any:
    if isinstance(settings, dict) and "kind" not in settings:
        return {"kind": "patch", **settings}
    return settings


Trigger = Annotated[
    PatchTrigger | BlendedTrigger | SinusoidTrigger | WarpTrigger,
    Discriminator("kind"),
    BeforeValidator(_patch_unless_named),
]
"""Settings of any trigger, told apart by `kind`; "patch" where none is named.

Each is a frozen record with `box(window, shape, anchor) -> Box` (its place on a film),
`footprint(shape, box) -> (H, W) bool`, `apply(image, box) -> Image` (pure), `is_random`,
`is_local`, `describe()` and `describe_place()`.
"""

__all__ = ["BlendedTrigger", "PatchTrigger", "SinusoidTrigger", "Trigger", "WarpTrigger"]
