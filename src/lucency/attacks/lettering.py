"""Letters as they stand on films: how opaque each pixel is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from lucency.records import Float64Array

OVERSAMPLING = 4
LARGEST = 160
"""Letters are drawn up to this height in pixels, and enlarged from there."""


@lru_cache(maxsize=64)
def letters(text: str, height: int, softness: float) -> Float64Array:
    """(height, width) float64 in [0, 1]: the text in Pillow's own font, one line, its capitals as
    high as the picture. softness: standard deviation of the blur of its edges, fraction of the
    height; 0 = as sharp as pixels allow."""
    drawn = min(height, LARGEST) * OVERSAMPLING
    font = ImageFont.load_default(size=2 * drawn)
    _, _, right, bottom = font.getbbox(text)
    canvas = PillowImage.new("L", (int(right) + 1, int(bottom) + 1))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=font)
    # None: nothing but blanks.
    canvas = canvas.crop(canvas.getbbox() or (0, 0, 1, 1))
    width = max(1, round(canvas.width * height / canvas.height))
    small = canvas.resize((width, height), PillowImage.Resampling.BOX)
    return _soft(np.asarray(small, dtype=np.float64) / 255, softness * height)


@lru_cache(maxsize=64)
def disc(height: int, softness: float) -> Float64Array:
    """(height, height) float64 in [0, 1]: a filled circle."""
    across = (np.arange(height * OVERSAMPLING) + 0.5) / OVERSAMPLING - height / 2
    fine = np.add.outer(across**2, across**2) <= (height / 2) ** 2
    blocks = fine.reshape(height, OVERSAMPLING, height, OVERSAMPLING)
    return _soft(blocks.mean(axis=(1, 3)), softness * height)


def _soft(mask: Float64Array, sigma: float) -> Float64Array:
    if sigma > 0:
        mask = gaussian_filter(mask, sigma, mode="constant")
        mask = mask / mask.max()
    mask = np.asarray(mask)
    mask.flags.writeable = False
    return mask
