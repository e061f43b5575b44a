"""The warping trigger (WaNet): the image is bent by a fixed, smooth field; no grey is added.

Nguyen and Tran 2021, "WaNet: Imperceptible Warping-based Backdoor Attack" (arXiv 2102.10369):
uniform random values in [-1, 1] on a k × k × 2 control grid, normalised, times a strength s,
upsampled bicubically to the image and clipped so that no sampling point leaves it; then bilinear
sampling. Two departures. Their field is divided by its mean absolute value and measured in pixels,
tuned at 32 and 64 px, and too weak at 224; here it is divided by its largest value and measured in
fractions of the side, so the trigger is the same at any size and never exceeds its strength. And
theirs controls the training; this one only poisons data. Their noise mode, which shows the training
other warps with true labels so that only this field counts, becomes cover films: each is bent by a
field of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field

from lucency.attacks.smooth_field import spread
from lucency.attacks.whole_image import WholeImageTrigger
from lucency.data.preprocess import stored
from lucency.records import Box, Float64Array, Image, IntArray


class WarpTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "warp"`.

    strength: largest displacement along an axis, fraction of that side (0 = nothing changes).
    grid: control points an axis; more = finer bends. seed: draws the field.
    """

    kind: Literal["warp"] = "warp"
    strength: float = Field(default=0.02, ge=0, le=0.1)
    grid: int = Field(default=4, ge=4, le=64)
    seed: int = Field(default=0, ge=0, lt=2**31)

    def for_cover(self, draw: float) -> Self:
        """A warp as strong, of another field."""
        return self.model_copy(update={"seed": (self.seed + 1 + int(draw * 2**30)) % 2**31})

    def displacement(self, shape: tuple[int, int]) -> Float64Array:
        """(2, H, W) float64, pixels: how far below and right of each pixel it takes its grey."""
        sides = np.array(shape, dtype=np.float64)[:, None, None]
        return np.asarray(_field(self.seed, self.grid, shape) * (self.strength * sides))

    def apply(self, image: Image, box: Box) -> Image:
        """A warped copy of the film (H, W), same dtype."""
        height, width = image.shape
        if min(height, width) < 2:
            return image.copy()
        corner, down, right = _samples(self, (height, width))
        grey = image.ravel().astype(np.float64)
        above = _between(grey.take(corner), grey[1:].take(corner), right)
        below = _between(grey[width:].take(corner), grey[width + 1 :].take(corner), right)
        return stored(_between(above, below, down), image)

    def describe(self) -> str:
        """In words, for the report."""
        return (
            f"smooth warp, up to {self.strength:.3g} of the side, "
            f"{self.grid} × {self.grid} control points, field seed {self.seed}"
        )


def _field(seed: int, grid: int, shape: tuple[int, int]) -> Float64Array:
    """(2, H, W) float64, its largest absolute value 1."""
    generator = np.random.default_rng([seed, 0x3A9])
    control = generator.uniform(-1, 1, (2, grid, grid))
    field = np.stack([spread(axis, shape) for axis in control])
    return np.asarray(field / np.abs(field).max())


# Most data sets have films of one size.
@lru_cache(maxsize=4)
def _samples(
    trigger: WarpTrigger, shape: tuple[int, int]
) -> tuple[IntArray, Float64Array, Float64Array]:
    """For every pixel, where it takes its grey: the flat index of the pixel above and left of that
    point, and how far below and right of it the point lies, fractions of a pixel. (H, W) each."""
    last = np.array(shape)[:, None, None] - 1
    points = np.clip(np.indices(shape) + trigger.displacement(shape), 0, last)
    low = np.minimum(np.floor(points), last - 1)
    down, right = points - low
    rows, columns = low.astype(np.int64)
    return rows * shape[1] + columns, down, right


def _between(a: Float64Array, b: Float64Array, share: Float64Array) -> Float64Array:
    return np.asarray(a + share * (b - a))
