"""SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825): the mean gradient over noisy copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB, logits_of, tiles
from lucency.explain.gradients import pixel_gradients, with_gradients
from lucency.victims.victim import Victim

SAMPLES = 16
NOISE = 0.1


def smoothgrad(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    samples: int = SAMPLES,
    noise: float = NOISE,
    seed: int = 0,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: positive = a brighter pixel raises
    the logit.

    The mean of ∂logit/∂pixel over `samples` copies with Gaussian noise of standard deviation
    `noise` (fraction of the full scale; not clipped). Every image gets the same noise, drawn from
    `seed`. samples + 1 forwards and samples backwards a finding. Raises ModelError for a victim
    without gradients.
    """
    chosen = checked(victim, grey, findings, n_versions=samples)
    shifts = noise * draw_noise(samples, grey.shape[2], grey.shape[3], seed).to(grey.device)
    with with_gradients(victim, "SmoothGrad") as differentiable:
        total = torch.zeros(len(grey), len(chosen), *grey.shape[2:], device=grey.device)
        logits = logits_of(differentiable, grey.detach(), budget_mb=budget_mb)
        for images, drawn in tiles(victim, len(grey), samples, budget_mb=budget_mb):
            noisy = grey.detach()[images] + shifts[drawn, None, None]
            gradients, _ = pixel_gradients(differentiable, noisy.flatten(0, 1), chosen)
            total[images] += gradients.view(*noisy.shape[:2], *gradients.shape[1:]).sum(dim=0)
    return Attribution(total / samples, logits, chosen)


def draw_noise(samples: int, height: int, width: int, seed: int) -> Tensor:
    """Standard normal values (samples, height, width) float32, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, height, width, generator=generator)
