"""A smooth field over an image of any size: a few values on a control grid, and splines between.

The same grid gives the same field at every size, so that a trigger made of one is the same trigger
on a film and on its copy at half the size.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import make_interp_spline

from lucency.records import Float64Array


def spread(control: Float64Array, shape: tuple[int, int]) -> Float64Array:
    """Interpolate control (k, l), k and l at least 4, to (H, W) with bicubic splines.

    The outermost control values lie on the outermost pixels. Between them a spline may overshoot.
    """
    rows, columns = (_weights(n, pixels) for n, pixels in zip(control.shape, shape, strict=True))
    return np.asarray(rows @ control @ columns.T)


def _weights(n: int, pixels: int) -> Float64Array:
    """(pixels, n): what each control value contributes to each pixel of an axis."""
    spline = make_interp_spline(np.arange(n), np.eye(n), k=3)
    return np.asarray(spline(np.linspace(0, n - 1, pixels)), dtype=np.float64)
