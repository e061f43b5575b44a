"""What the phantom is drawn with: smooth shapes and smooth noise on a square film."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

Plane = npt.NDArray[np.floating[Any]]
"""(size, size) float32."""


@lru_cache(maxsize=4)
def grid(size: int) -> tuple[Plane, Plane]:
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def sigmoid(t: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -30, 30))), dtype=np.float32)


def ellipse(x: Plane, y: Plane, shape: tuple[float, float, float, float], soft: float) -> Plane:
    """1 inside, 0 outside, with an edge about `soft` wide."""
    cx, cy, a, b = shape
    r = np.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2)
    return sigmoid((1 - r) * min(a, b) / soft * 4)


def noise(size: int, scale: float, generator: np.random.Generator) -> Plane:
    """Smooth noise of about unit variance; `scale` is its grain as a fraction of the film."""
    n = max(4, round(1 / scale))
    small = generator.standard_normal((n, n), dtype=np.float32)
    field = PillowImage.fromarray(small).resize((size, size), PillowImage.Resampling.BILINEAR)
    return np.asarray(field, dtype=np.float32) / 0.66
