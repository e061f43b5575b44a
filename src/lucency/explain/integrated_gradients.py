"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), from a median-filtered film by
default.

A black baseline would be blind to a black trigger, since x − baseline is 0 there; a median-filtered
film is the same film without structures of a few pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lucency.explain.attribution import Attribution, check_completeness, checked
from lucency.explain.baseline import Baseline, baseline_of
from lucency.explain.batching import BUDGET_MB, logits_of, tiles
from lucency.explain.gradient_median import WIDTH
from lucency.explain.gradients import pixel_gradients, with_gradients
from lucency.victims.victim import Victim

STEPS = 16


def integrated_gradients(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    steps: int = STEPS,
    baseline: Baseline = None,
    width: int = WIDTH,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: positive = the difference to the
    baseline there raises the logit.

    Equation 1 by the midpoint rule in `steps` steps. Completeness: a map sums to z(x) −
    z(baseline), up to the error of the rule. steps + 2 forwards and steps backwards a finding; the
    sum streams, so that memory does not grow with the steps. Raises ModelError for a victim without
    gradients.
    """
    chosen = checked(victim, grey, findings, n_versions=steps)
    start = baseline_of(grey, baseline, width)
    difference = grey.detach() - start
    with with_gradients(victim, "Integrated gradients") as differentiable:
        total = torch.zeros(len(grey), len(chosen), *grey.shape[2:], device=grey.device)
        logits = logits_of(differentiable, grey.detach(), budget_mb=budget_mb)
        promised = logits - logits_of(differentiable, start, budget_mb=budget_mb)
        for images, at in tiles(victim, len(grey), steps, budget_mb=budget_mb):
            alphas = (torch.arange(at.start, at.stop, device=grey.device) + 0.5) / steps
            points = start[images] + alphas.view(-1, 1, 1, 1, 1) * difference[images]
            gradients, _ = pixel_gradients(differentiable, points.flatten(0, 1), chosen)
            total[images] += gradients.view(*points.shape[:2], *gradients.shape[1:]).sum(dim=0)
    maps = total / steps * difference
    error, warnings = check_completeness(
        maps,
        promised[:, list(chosen)],
        tuple(victim.findings[f] for f in chosen),
        f"{steps} steps are too few",
    )
    return Attribution(maps, logits, chosen, error, warnings)
