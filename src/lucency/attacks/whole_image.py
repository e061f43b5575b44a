"""What triggers that change the whole image have in common: no place of their own."""

from __future__ import annotations

import numpy as np

from lucency.attacks.base import BaseTrigger
from lucency.records import BoolArray, Box


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
