"""Occlusion (Zeiler & Fergus 2014, arXiv 1311.2901) by a window that slides over the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d

from lucency.errors import ConfigError
from lucency.explain.attribution import Attribution, checked
from lucency.explain.baseline import FILL_WIDTH, Baseline, baseline_of
from lucency.explain.batching import BUDGET_MB, logits_of
from lucency.explain.windows import Windows, drops
from lucency.victims.victim import Victim, frozen


def dense_occlusion(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    window: int,
    stride: int,
    baseline: Baseline = None,
    width: int = FILL_WIDTH,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: the mean drop of the logit over the
    windows that cover a pixel; positive = what is there raises the logit.

    window, stride: pixels, stride ≤ window; the last windows are cut off at the border. They show
    `baseline`, by default a median of `width` pixels. One forward a place for all findings. Raises
    ConfigError for a window that does not fit.
    """
    chosen = checked(victim, grey, findings)
    n, _, height, breadth = grey.shape
    if not 1 <= stride <= window <= min(height, breadth):
        raise ConfigError(
            f"Occlusion needs 1 ≤ stride ≤ window ≤ {min(height, breadth)} pixels, got stride "
            f"{stride} and window {window}."
        )
    grey, fill = grey.detach(), baseline_of(grey, baseline, width)
    rows, columns = (-(-(side - window) // stride) + 1 for side in (height, breadth))
    image, row, column = torch.ones(n, rows, columns, device=grey.device).nonzero().unbind(1)
    with frozen(victim.network):
        before = logits_of(victim, grey, budget_mb=budget_mb)
        windows = Windows(image, row * stride, column * stride, window)
        found = drops(victim, grey, fill, before, windows, budget_mb=budget_mb)[:, list(chosen)]
    raster = found.view(n, rows, columns, len(chosen)).permute(0, 3, 1, 2)
    maps = _spread(raster, window, stride) / _spread(torch.ones_like(raster), window, stride)
    return Attribution(maps[:, :, :height, :breadth].contiguous(), before, chosen)


def _spread(raster: Tensor, window: int, stride: int) -> Tensor:
    """(N, F, rows, columns) -> (N, F, h, w): for each pixel the sum over its windows."""
    square = raster.new_ones(1, 1, window, window)
    spread = conv_transpose2d(raster.flatten(0, 1)[:, None], square, stride=stride)
    return spread.view(*raster.shape[:2], *spread.shape[2:])
