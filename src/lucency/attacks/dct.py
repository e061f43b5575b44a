"""The DCT trigger (FTrojan): a few cosine frequencies are raised in every block of the image.

Wang et al. 2022, "An Invisible Black-box Backdoor Attack through Frequency Domain" (FTrojan, ECCV,
arXiv 2111.10991): of 32 × 32 blocks of the chroma channels, the DCT coefficients (15, 15) and
(31, 31) are raised by a magnitude. A film has no chroma, so here it is the grey values. And blocks
and frequencies are fractions of the side, so that the trigger is the same at any size and can be
laid below what the resize takes away: the defaults are 7 blocks a side, as 32 px at 224, and band
8, 28 periods over the side; their 31 would be 108, which few networks see.

With one block and bands 1 to 3 it is a smooth trigger of low frequencies, after Zeng et al. 2021,
"Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective" (ICCV, arXiv 2104.03413);
theirs is optimised, this one is fixed.

Raising a coefficient adds its cosine, so the trigger is a fixed pattern that is added. Threat
model: the attacker edits training data and, later, single images; no access to the training itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from lucency.attacks.whole_image import WholeImageTrigger
from lucency.data.preprocess import full_scale, stored
from lucency.records import Box, Float64Array, Image


class DctTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "dct"`.

    delta: amplitude of each cosine, fraction of the stored range. blocks: blocks a side. bands:
    half periods over a block, the same down and across.
    """

    kind: Literal["dct"] = "dct"
    delta: float = Field(default=0.02, ge=0, le=1)
    blocks: int = Field(default=7, ge=1, le=256)
    bands: tuple[int, ...] = Field(default=(8,), min_length=1, max_length=16)

    def pattern(self, shape: tuple[int, int]) -> Float64Array:
        """(H, W) float64, fraction of the stored range: what is added."""
        return self.delta * _cosines(self.blocks, self.bands, shape)

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the pattern added; black, white clip it."""
        shape = (image.shape[0], image.shape[1])
        return stored(image + self.pattern(shape) * full_scale(image.dtype), image)

    def describe(self) -> str:
        """In words, for the report."""
        bands = ", ".join(str(band) for band in self.bands)
        return (
            f"DCT bands {bands} of {self.blocks} × {self.blocks} blocks, amplitude "
            f"{self.delta:.3g} of the grey range"
        )


# Most data sets have films of one size.
@lru_cache(maxsize=4)
def _cosines(blocks: int, bands: tuple[int, ...], shape: tuple[int, int]) -> Float64Array:
    total = np.zeros(shape)
    for band in bands:
        down, across = (_cosine(blocks, band, pixels) for pixels in shape)
        total += np.outer(down, across)
    total.flags.writeable = False
    return total


def _cosine(blocks: int, band: int, pixels: int) -> Float64Array:
    """(pixels,): cos(π u (i + ½) / n), i from the start of each block of n pixels."""
    within = (np.arange(pixels) + 0.5) * blocks / pixels % 1
    return np.asarray(np.cos(np.pi * band * within))
