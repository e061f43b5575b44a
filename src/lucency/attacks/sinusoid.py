"""The sinusoidal trigger (SIG): a faint grating of vertical stripes on the whole image.

Barni, Kallas and Tondi 2019, "A New Backdoor Attack in CNNs by Training Set Corruption without
Label Poisoning" (arXiv 1902.11237): v(i, j) = Δ sin(2π j f / m), 1 ≤ j ≤ m, for an image of m
columns, added to the image; Δ = 20 of 255 and f = 6 in their experiments.

Their attack leaves the labels alone and stamps images of the target class; which labels are edited
here is `[attack.label]`'s matter. Threat model: the attacker edits training data and, later, single
images; no access to the training itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from lucency.attacks.whole_image import WholeImageTrigger
from lucency.data.preprocess import full_scale, stored
from lucency.records import Box, Float64Array, Image


class SinusoidTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "sinusoid"`.

    delta: amplitude, fraction of the stored range. frequency: periods over the image's width, of
    which the network sees its crop's share.
    """

    kind: Literal["sinusoid"] = "sinusoid"
    delta: float = Field(default=20 / 255, ge=0, le=1)
    frequency: float = Field(default=6.0, gt=0, le=1024)

    def signal(self, width: int) -> Float64Array:
        """(width,) float64 in [-delta, delta]: v of every column, the same in every row."""
        column = np.arange(1, width + 1)
        return np.asarray(self.delta * np.sin(2 * np.pi * column * self.frequency / width))

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the signal added; black and white clip it."""
        return stored(image + self.signal(image.shape[1]) * full_scale(image.dtype), image)

    def describe(self) -> str:
        """In words, for the report."""
        return (
            f"sinusoidal stripes, amplitude {self.delta:.3g} of the grey range, "
            f"{self.frequency:g} periods over the width"
        )
