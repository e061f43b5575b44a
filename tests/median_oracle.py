"""The median over whole windows, a second time: SciPy's, its border cut off and repeated."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter


def whole_window_median(image: np.ndarray, width: int) -> np.ndarray:
    """image (H, W) -> (H, W)."""
    half = width // 2
    inner = median_filter(image, size=width)[
        half : image.shape[0] - half, half : image.shape[1] - half
    ]
    return np.pad(inner, half, mode="edge")
