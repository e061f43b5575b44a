"""Gradient × input (Shrikumar et al. 2016, arXiv 1605.01713): the first-order share of each pixel
in the difference to a black image.

The input is the pixel's grey value, x − 0, before normalisation: a black pixel has no share,
whatever it does. So this map is blind to a black trigger; `gradient_median` is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB
from lucency.explain.gradients import gradients
from lucency.victims.victim import Victim


def gradient_input(
    victim: Victim, grey: Tensor, findings: Sequence[int], *, budget_mb: float = BUDGET_MB
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, H, W), signed: positive = the pixel's brightness
    raises the logit.

    One forward, and one backward a finding. Raises ModelError for a victim without gradients.
    """
    chosen = checked(victim, grey, findings)
    maps, logits = gradients(victim, grey, chosen, method="Gradient × input", budget_mb=budget_mb)
    return Attribution(maps * grey.detach(), logits, chosen)
