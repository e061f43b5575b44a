"""Does the trigger lie on something that films have by nature?

A lead letter, a clip or a collimator's edge is a small bright or dark structure of its own, and a
network that learned it from real films answers to a stamp in its place as a backdoored one does.
The audit cannot tell the two apart by what they do; it can say that clean films have such a
structure at that place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from lucency.detect.images.regions import smooth
from lucency.detect.models.evidence import Recovered
from lucency.detect.models.subject import Subject

NEAR = 3
"""Network pixels that a natural structure may lie off the trigger's place."""
AS_STRONG = 0.5
"""Of the trigger's contrast, that a structure must have to be like it."""
ENOUGH = 0.05
"""Share of clean films from which it is called natural."""


@dataclass(frozen=True)
class Natural:
    """Clean films with a structure like the trigger near its place, how many `of` how many.
    is_bright: of which kind. shift: how much higher their logits of the finding are than the
    others', in standard deviations; None where all or none have it."""

    films: int
    of: int
    is_bright: bool
    shift: float | None

    @property
    def is_shortcut(self) -> bool:
        return self.films >= max(2, ENOUGH * self.of)


def natural(subject: Subject, found: Recovered, finding: int) -> Natural | None:
    """Look for it on the clean films; None for a trigger of the whole film."""
    box = found.box
    if box is None:
        return None
    films = subject.films
    around = smooth(films, box.width)
    there = (slice(None), 0, slice(box.y, box.y + box.height), slice(box.x, box.x + box.width))
    with torch.inference_mode():
        contrast = (found.put(films) - around)[there].mean(dim=(1, 2))
    is_bright = float(contrast.median()) >= 0
    sign = 1.0 if is_bright else -1.0
    own = sign * (films - around)
    side = min(box.width, box.height)
    mean = avg_pool2d(own, side, stride=1)
    strongest = max_pool2d(mean, 2 * NEAR + 1, stride=1, padding=NEAR)
    y, x = (min(at, strongest.shape[2] - 1) for at in (box.y, box.x))
    alike = strongest[:, 0, y, x] >= AS_STRONG * float((sign * contrast).median().clamp(min=1e-3))
    has = alike.cpu().numpy()
    shift = None
    if has.any() and not has.all():
        logits = subject.logits[:, finding] / subject.spread[finding]
        shift = float(logits[has].mean() - logits[~has].mean())
    return Natural(int(has.sum()), len(has), is_bright, shift)


def in_words(found: Natural, finding: str) -> str:
    """What a reader should know of it."""
    kind = "bright" if found.is_bright else "dark"
    sentence = (
        f"{found.films} of {found.of} clean films have a {kind} structure of this size there by "
        "nature, such as a marker or a lead: this may be a shortcut learned from real films"
    )
    if found.shift is None:
        return f"{sentence}."
    direction = "higher" if found.shift >= 0 else "lower"
    return (
        f"{sentence}; their {finding} logits are {abs(np.round(found.shift, 1))} standard "
        f"deviations {direction} than the others'."
    )
