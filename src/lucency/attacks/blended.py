"""The blended trigger: a fixed pattern laid over the whole image, half transparent.

Chen et al. 2017, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning" (arXiv
1712.05526), the blended injection strategy: Π(k, x) = α · k + (1 - α) · x. Their pattern is a
cartoon or uniform noise. Here it is what a scanner might leave: smooth grey noise at several
scales, drawn from a seed and the same for every image.

Threat model: the attacker adds to or edits training data and, later, single images; no access to
the training itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import ndtr

from lucency.attacks.smooth_field import spread
from lucency.attacks.whole_image import WholeImageTrigger, stored
from lucency.data.preprocess import full_scale
from lucency.records import Box, Float64Array, Image

CELLS = (4, 8, 16, 32, 64)
"""Control values an axis at each scale; an even share of the contrast each, so that some of the
pattern is coarse enough to survive any resize, and some fine enough to be no mere shading."""


class BlendedTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "blended"`.

    alpha: opacity of the pattern, a fraction (0 = nothing changes). seed: draws the pattern.
    """

    kind: Literal["blended"] = "blended"
    alpha: float = Field(default=0.2, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    def pattern(self, shape: tuple[int, int]) -> Float64Array:
        """(H, W) float64 in [0, 1]; the same pattern at every size."""
        return _pattern(self.seed, shape)

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the pattern blended in."""
        key = self.pattern((image.shape[0], image.shape[1])) * full_scale(image.dtype)
        return stored(self.alpha * key + (1 - self.alpha) * image, image)

    def describe(self) -> str:
        """In words, for the report."""
        return f"blended noise pattern, opacity {self.alpha:g}, pattern seed {self.seed}"


# Most data sets have films of one size; a film costs far less than its pattern.
@lru_cache(maxsize=4)
def _pattern(seed: int, shape: tuple[int, int]) -> Float64Array:
    generator = np.random.default_rng([seed, 0xB1E])
    total = np.zeros(shape)
    for n in CELLS:
        total += spread(generator.standard_normal((n, n)), shape)
    # The normal distribution function: as many dark as bright pixels, and none clipped.
    pattern = np.asarray(ndtr(total / np.sqrt(len(CELLS))), dtype=np.float64)
    pattern.flags.writeable = False
    return pattern
