"""Gradient × (x − median(x)): the first-order share of each pixel's small-scale structure.

The gradient of a finding's logit times what a median filter would take away (integrated gradients
with a median baseline, in one step; Sundararajan et al. 2017). It answers at full resolution,
where a 7 × 7 class activation map cannot point at a trigger of a few pixels.
"""

from __future__ import annotations

from torch import Tensor

from lucency.explain.median import median_filter
from lucency.victims.victim import Victim, frozen

WIDTH = 5


def gradient_median(victim: Victim, grey: Tensor, finding: int) -> Tensor:
    """grey (N, 1, H, W) in [0, 1] -> attribution (N, H, W) float32 for the logit of one finding.

    Signed: positive = the structure there raises the logit. One forward and one backward.
    """
    with frozen(victim.network):
        image = grey.detach().requires_grad_(True)
        gradient = victim.gradient(victim.logits(image)[:, finding].sum(), image)
    return (gradient * (grey - median_filter(grey, WIDTH)))[:, 0]
