"""The blended trigger: a fixed pattern laid over the whole image, half transparent.

Chen et al. 2017, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning" (arXiv
1712.05526), the blended injection strategy: Π(k, x) = α · k + (1 - α) · x. Their pattern is a
cartoon or uniform noise. Here it is what a scanner might leave: smooth grey noise at several
scales, drawn from a seed and the same for every image.

With a share of its tiles on every training film, and cover films, it is the adaptive blend of Qi et
al. 2023, "Revisiting the Assumption of Latent Separability for Backdoor Defenses" (ICLR); the test
shows the whole pattern.

Threat model: the attacker adds to or edits training data and, later, single images; no access to
the training itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr
from scipy.special import ndtr

from lucency.attacks.base import some_of
from lucency.attacks.smooth_field import spread
from lucency.attacks.whole_image import WholeImageTrigger
from lucency.data.preprocess import full_scale, stored
from lucency.records import Box, Float64Array, Image

CELLS = (4, 8, 16, 32, 64)
"""Control values an axis at each scale; an even share of the contrast each, so that some of the
pattern is coarse enough to survive any resize, and some fine enough to be no mere shading."""

TILES = 8
"""A side."""


class BlendedTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "blended"`.

    alpha: opacity of the pattern, a fraction (0 = nothing changes). seed: draws the pattern.
    training_share: of its 8 × 8 tiles, which share a training film shows, drawn film by film.
    """

    kind: Literal["blended"] = "blended"
    alpha: float = Field(default=0.2, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    training_share: float = Field(default=1.0, gt=0, le=1)
    _shown: tuple[int, ...] | None = PrivateAttr(default=None)

    def for_training(self, draw: float) -> Self:
        """The same pattern on `training_share` of its tiles."""
        if self.training_share == 1:
            return self
        count = max(1, round(self.training_share * TILES**2))
        part = self.model_copy()
        part._shown = some_of(TILES**2, count, draw, 0x711E)
        return part

    def pattern(self, shape: tuple[int, int]) -> Float64Array:
        """(H, W) float64 in [0, 1]; the same pattern at every size."""
        return _pattern(self.seed, shape)

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the pattern blended in."""
        shape = (image.shape[0], image.shape[1])
        key = self.pattern(shape) * full_scale(image.dtype)
        alpha = self.alpha * self._tiles(shape)
        return stored(alpha * key + (1 - alpha) * image, image)

    def _tiles(self, shape: tuple[int, int]) -> Float64Array:
        """(H, W): 1 on the tiles that are shown, 0 elsewhere; (1,) where all are."""
        if self._shown is None:
            return np.ones(1)
        on = np.isin(np.arange(TILES**2), self._shown).reshape(TILES, TILES)
        down, across = (np.arange(pixels) * TILES // pixels for pixels in shape)
        return on[np.ix_(down, across)].astype(np.float64)

    def describe(self) -> str:
        """In words, for the report."""
        pattern = f"blended noise pattern, opacity {self.alpha:g}, pattern seed {self.seed}"
        if self.training_share == 1:
            return pattern
        return f"{pattern}; a training film shows {self.training_share:.0%} of its tiles"


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
