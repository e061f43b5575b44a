"""What a pixel is compared with, given in pixel space: 0 is black, not the 0 of normalisation."""

from __future__ import annotations

from torch import Tensor

from lucency.errors import ConfigError
from lucency.explain.median import median_filter

FILL_WIDTH = 9
"""Of the median that fills what is occluded, pixels: it takes away squares of up to 6."""

Baseline = Tensor | float | None
"""Images (N or 1, 1, H, W) in [0, 1]; a grey value in [0, 1]; or None for the local median."""


def baseline_of(grey: Tensor, baseline: Baseline, width: int) -> Tensor:
    """grey (N, 1, H, W) -> its baseline (N, 1, H, W). width: of the median, pixels, odd.

    Raises ConfigError for a baseline that does not fit the images or leaves [0, 1].
    """
    grey = grey.detach()
    if baseline is None:
        return median_filter(grey, width)
    value = grey.new_full((1, 1, 1, 1), baseline) if isinstance(baseline, float | int) else baseline
    value = value.detach().to(grey)
    fits = value.ndim == 4 and all(
        a in (1, b) for a, b in zip(value.shape, grey.shape, strict=True)
    )
    if not fits or not ((value >= 0) & (value <= 1)).all():
        raise ConfigError(
            f"baseline must be grey values in [0, 1], a number or images {tuple(grey.shape)}, got "
            f"{tuple(value.shape)} from {float(value.min()):.3g} to {float(value.max()):.3g}."
        )
    return value.expand_as(grey)
