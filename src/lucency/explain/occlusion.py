"""Occlusion (Zeiler & Fergus 2014, arXiv 1311.2901) from coarse to fine: only the squares that
matter are looked into.

A sweep of small windows over a whole film takes thousands of forwards. Here large windows cover the
film, the strongest are cut into four, and so on. A window shows the film's local median: its
anatomy stays, and what is smaller than about two thirds of the median goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lucency.errors import ConfigError
from lucency.explain.attribution import TINY, Attribution, checked
from lucency.explain.baseline import FILL_WIDTH, Baseline, baseline_of
from lucency.explain.batching import BUDGET_MB, logits_of
from lucency.explain.dense_occlusion import dense_occlusion
from lucency.explain.windows import Windows, drops
from lucency.victims.victim import Victim, frozen

FINEST = 4
FORWARDS = 256


def occlusion(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    forwards: int = FORWARDS,
    coarsest: int | None = None,
    finest: int = FINEST,
    window: int | None = None,
    stride: int | None = None,
    baseline: Baseline = None,
    width: int = FILL_WIDTH,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: what the smallest window over a
    pixel takes from the logit, over the window's area; positive = what is there raises the logit.

    At most `forwards` an image, for all findings together, through the victim's engine. coarsest,
    finest: sides of the first and the last windows, pixels, in a ratio of 2ᵏ; coarsest None = about
    a seventh of the image. baseline: what a window shows, None = a median of `width` pixels. With a
    `window`, in place of all this the exact sweep of `dense_occlusion`, whose stride is `stride` or
    the window. Raises ConfigError for numbers that do not fit each other.
    """
    chosen = checked(victim, grey, findings)
    if window is not None or stride is not None:
        return dense_occlusion(
            victim,
            grey,
            chosen,
            window=window or 0,
            stride=stride or window or 0,
            baseline=baseline,
            width=width,
            budget_mb=budget_mb,
        )
    n, _, height, breadth = grey.shape
    sides = _sides(coarsest, finest, min(height, breadth))
    refined = _refined(forwards, sides, height, breadth)
    grey, fill = grey.detach(), baseline_of(grey, baseline, width)
    maps = torch.zeros(n, len(chosen), height, breadth, device=grey.device)
    selected = _whole(n, sides[0], height, breadth).to(grey.device)
    with frozen(victim.network):
        before = logits_of(victim, grey, budget_mb=budget_mb)
        for side in sides:
            image, row, column = selected.nonzero().unbind(1)
            windows = Windows(image, row * side, column * side, side)
            found = drops(victim, grey, fill, before, windows, budget_mb=budget_mb)[:, list(chosen)]
            raster = found.new_zeros(*selected.shape, len(chosen))
            raster[image, row, column] = found
            maps = _painted(maps, raster, selected, side)
            selected = _quarters(_strongest(raster, selected, refined), side, height, breadth)
    return Attribution(maps, before, chosen)


def _sides(coarsest: int | None, finest: int, length: int) -> list[int]:
    """The sides of the windows, halved from level to level."""
    if coarsest is None:
        coarsest = finest
        while 2 * coarsest <= length / 6:
            coarsest *= 2
    sides = [coarsest]
    while sides[-1] > finest and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    if not 1 <= finest == sides[-1] or coarsest > length:
        raise ConfigError(
            f"Occlusion's windows need a coarsest side that is the finest times 1, 2, 4, … and at "
            f"most {length} pixels, got {coarsest} and {finest}."
        )
    return sides


def _refined(forwards: int, sides: list[int], height: int, breadth: int) -> int:
    """How many windows of each level can be cut into four."""
    first = 1 + -(-height // sides[0]) * -(-breadth // sides[0])
    levels = len(sides) - 1
    needed = first + 4 * levels
    if forwards < needed:
        raise ConfigError(
            f"Occlusion needs at least {needed} forwards from windows of {sides[0]} to {sides[-1]} "
            f"pixels, got {forwards}; allow more, or larger windows."
        )
    return (forwards - first) // (4 * levels) if levels else 0


def _whole(n: int, side: int, height: int, breadth: int) -> Tensor:
    """All windows of a side: (N, rows, columns) bool."""
    return torch.ones(n, -(-height // side), -(-breadth // side), dtype=torch.bool)


def _painted(maps: Tensor, raster: Tensor, measured: Tensor, side: int) -> Tensor:
    """maps (N, F, H, W) with drops (N, rows, columns, F) over the area of their windows, where
    `measured` (N, rows, columns) says that there is one."""
    height, breadth = maps.shape[2:]
    rows, columns = (
        (length - torch.arange(0, length, side, device=maps.device)).clamp(max=side)
        for length in (height, breadth)
    )
    density = raster.permute(0, 3, 1, 2) / (rows[:, None] * columns)
    return torch.where(
        _enlarged(measured[:, None], side)[..., :height, :breadth],
        _enlarged(density, side)[..., :height, :breadth],
        maps,
    )


def _strongest(raster: Tensor, measured: Tensor, count: int) -> Tensor:
    """The `count` windows of each image with the largest drop or rise, (N, rows, columns) bool.

    Each finding is measured by its own largest, so that a finding with small logits gets its share.
    """
    size = raster.abs()
    largest = size.amax(dim=(1, 2), keepdim=True).clamp(min=TINY)
    score = (size / largest).amax(dim=3).masked_fill(~measured, -1.0).flatten(1)
    top = score.topk(min(count, score.shape[1]), dim=1).indices
    chosen = torch.zeros_like(score, dtype=torch.bool).scatter(1, top, True)
    return (chosen & (score >= 0)).view_as(measured)


def _quarters(windows: Tensor, side: int, height: int, breadth: int) -> Tensor:
    """The windows of half the side inside the given ones; none of them outside of the image."""
    half = max(1, side // 2)
    return _enlarged(windows, 2)[:, : -(-height // half), : -(-breadth // half)]


def _enlarged(raster: Tensor, factor: int) -> Tensor:
    """(…, rows, columns) with each value `factor` times along both."""
    return raster.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
