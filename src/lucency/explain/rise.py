"""RISE (Petsiuk et al. 2018, arXiv 1806.07421): the mean logit over random masks that leave a pixel
visible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lucency.explain.attribution import TINY, Attribution, checked
from lucency.explain.baseline import FILL_WIDTH, Baseline, baseline_of
from lucency.explain.batching import BUDGET_MB, logits_of, tiles
from lucency.victims.victim import Victim, frozen

SAMPLES = 1000
GRID = 7
PROBABILITY = 0.5


def rise(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    samples: int = SAMPLES,
    grid: int = GRID,
    probability: float = PROBABILITY,
    baseline: Baseline = 0.0,
    width: int = FILL_WIDTH,
    seed: int = 0,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W): the logit by which a visible pixel raises
    the finding over the mean of all masks.

    Equation 6 with each pixel's own coverage for E[M], less the mean logit, which moves a map by a
    constant: Σ zM / ΣM − mean z. Each mask leaves cells of a grid × grid raster visible with
    `probability`, enlarges them bilinearly and shifts them at random; the rest shows `baseline`,
    black as in the paper. Every image gets the same masks, drawn from `seed`. samples + 1 forwards
    for all findings together, through the victim's engine.
    """
    chosen = checked(victim, grey, findings, n_versions=samples)
    column = list(chosen)
    hidden = baseline_of(grey, baseline, width)
    shown = grey.detach() - hidden
    size = (grey.shape[2], grey.shape[3])
    cells, shifts = (
        drawn.to(grey.device) for drawn in draw_masks(samples, grid, probability, size, seed)
    )
    weighted = torch.zeros(len(grey), len(chosen), *size, device=grey.device)
    total = torch.zeros(len(grey), len(chosen), device=grey.device)
    coverage = torch.zeros(len(grey), 1, *size, device=grey.device)
    with frozen(victim.network):
        before = logits_of(victim, grey.detach(), budget_mb=budget_mb)
        for images, drawn in tiles(
            victim, len(grey), samples, budget_mb=budget_mb, with_gradients=False
        ):
            masks = masks_of(cells[drawn], shifts[drawn], size)
            versions = hidden[images] + masks[:, None, None] * shown[images]
            with torch.inference_mode():
                logits = victim.logits(versions.flatten(0, 1)).view(*versions.shape[:2], -1)
            # Relative to the whole image, or a large constant would cost the sums their precision.
            gain = (logits - before[images])[..., column]
            weighted[images] += torch.einsum("mnf,mhw->nfhw", gain, masks)
            coverage[images] += masks.sum(dim=0)
            total[images] += gain.sum(dim=0)
    maps = weighted / coverage.clamp(min=TINY) - (total / samples)[:, :, None, None]
    return Attribution(maps, before, chosen)


def draw_masks(
    samples: int, grid: int, probability: float, size: tuple[int, int], seed: int
) -> tuple[Tensor, Tensor]:
    """Visible cells (samples, grid, grid) float32, 0 or 1, and shifts (samples, 2) in pixels, each
    less than a cell; on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(samples, grid, grid, generator=generator) < probability).float()
    draws = torch.rand(samples, 2, generator=generator)
    sides = torch.tensor([_side(size[0], grid), _side(size[1], grid)])
    return cells, (draws * sides).long()


def masks_of(cells: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (S, H, W) float32 in [0, 1] of cells (S, grid, grid): enlarged bilinearly to one cell
    more than the image, and cut out at the shift."""
    grid = cells.shape[-1]
    sides = (_side(size[0], grid), _side(size[1], grid))
    enlarged = interpolate(
        cells[:, None], [(grid + 1) * s for s in sides], mode="bilinear", align_corners=False
    )[:, 0]
    rows = shifts[:, 0, None] + torch.arange(size[0], device=cells.device)
    columns = shifts[:, 1, None] + torch.arange(size[1], device=cells.device)
    sample = torch.arange(len(cells), device=cells.device)[:, None, None]
    return enlarged[sample, rows[:, :, None], columns[:, None, :]]


def _side(length: int, grid: int) -> int:
    """Pixels of a cell: the smallest number that covers the length."""
    return -(-length // grid)
