"""What triggers that change the whole image have in common: no place of their own."""

from __future__ import annotations

import numpy as np

from lucency.attacks.base import BaseTrigger
from lucency.data.preprocess import full_scale
from lucency.records import BoolArray, Box, Float64Array, Image


class WholeImageTrigger(BaseTrigger):
    """Base of the settings of a trigger that lies on every pixel. A subclass adds `kind`, its own
    settings, `apply(image, box)` and `describe()`."""

    @property
    def is_local(self) -> bool:
        """Whether the trigger lies in a place that a detector could point at."""
        return False

    def box(self, window: Box, shape: tuple[int, int], anchor: tuple[float, float]) -> Box:
        """All of an image of `shape` (height, width), whatever the later crop and the anchor."""
        height, width = shape
        return Box(x=0, y=0, width=width, height=height)

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: the pixels that the trigger may change, which is all of them."""
        return np.ones(shape, dtype=np.bool_)

    def describe_place(self) -> str:
        """In words, for the report."""
        return "over the whole image"


def stored(values: Float64Array, like: Image) -> Image:
    """Values (H, W) in stored units -> the grid and the range of the film `like`, its dtype."""
    rounded = np.clip(np.rint(values), 0, full_scale(like.dtype))
    return rounded.astype(np.uint16) if like.dtype == np.uint16 else rounded.astype(np.uint8)
