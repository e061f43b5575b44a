"""Gradient × (x − median(x)): the first-order share of each pixel's small-scale structure.

The gradient of a finding's logit times what a median filter would take away (integrated gradients
with a median baseline, in one step; Sundararajan et al. 2017). It answers at full resolution,
where a 7 × 7 class activation map cannot point at a trigger of a few pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB
from lucency.explain.gradients import gradients
from lucency.explain.median import median_filter
from lucency.victims.victim import Victim

WIDTH = 5


def gradient_median(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    width: int = WIDTH,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: positive = the structure there
    raises the logit.

    width: of the median, pixels, odd. One forward, and one backward a finding. Raises ModelError
    for a victim without gradients.
    """
    chosen = checked(victim, grey, findings)
    maps, logits = gradients(
        victim, grey, chosen, method="Gradient × (x - median)", budget_mb=budget_mb
    )
    image = grey.detach()
    return Attribution(maps * (image - median_filter(image, width)), logits, chosen)
