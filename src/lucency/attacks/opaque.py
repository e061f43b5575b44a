"""What triggers that are laid over the film have in common: a mask of opacities, and white."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lucency.attacks.placed import PlacedTrigger
from lucency.data.preprocess import full_scale, stored
from lucency.records import BoolArray, Box, Float64Array, Image

VISIBLE = 1 / 255
"""A share of white below this changes no grey level of 8 bits, and counts as none."""


class OpaqueTrigger(PlacedTrigger):
    """Base of a trigger that is laid over the film through a mask of opacities."""

    size_key: ClassVar[str] = "size"

    size: float
    opacity: float

    def mask(self, height: int) -> Float64Array:
        """(height, width) float64 in [0, 1]: how opaque each pixel is."""
        raise NotImplementedError

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width on an image of `shape`, native pixels."""
        height, width = self.mask(self._height(shape)).shape
        return height, width

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: the pixels that the trigger may change."""
        changed = np.zeros(shape, dtype=np.bool_)
        changed[_inside(box)] = self._laid(shape) > 0
        return changed

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the mask's share of white laid over."""
        shape = (image.shape[0], image.shape[1])
        share, inside = self._laid(shape), _inside(box)
        stamped = image.copy()
        under = image[inside]
        stamped[inside] = stored(under + share * (full_scale(image.dtype) - under), image)
        return stamped

    def _laid(self, shape: tuple[int, int]) -> Float64Array:
        share = self.opacity * self.mask(self._height(shape))
        return np.where(share >= VISIBLE, share, 0.0)

    def _height(self, shape: tuple[int, int]) -> int:
        return max(1, round(self.size * min(shape)))


def _inside(box: Box) -> tuple[slice, slice]:
    return slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
