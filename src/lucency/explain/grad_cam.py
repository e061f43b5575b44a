"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), of a finding's logit, through the real
network.

The map has the cells of its layer and no more: at the last layer of a DenseNet at 224 px each of
7 × 7 cells stands for 32 × 32 px. It is never smoothed here; a renderer draws the cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB
from lucency.explain.layer import LAST_LAYERS, first_of, layer_maps
from lucency.victims.victim import Victim


def grad_cam(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    layer: str | None = None,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, h, w), not negative, the layer's own cells.

    ReLU(Σ_c α_c A_c) with α_c the mean over the map of ∂logit/∂A_c (equations 1 and 2). `layer` is
    a name of `network.named_modules()`; None = the last map. One forward, and one short backward a
    finding. Raises ConfigError for a layer that does not exist or gives no map, ModelError for a
    victim without gradients.
    """
    chosen = checked(victim, grey, findings)
    layer = layer or first_of(victim.network, LAST_LAYERS)
    maps, logits = layer_maps(
        victim, grey, chosen, layer, _weigh, method="Grad-CAM", budget_mb=budget_mb
    )
    return Attribution(maps, logits, chosen)


def _weigh(activations: Tensor, gradients: Tensor) -> Tensor:
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).clamp(min=0)
