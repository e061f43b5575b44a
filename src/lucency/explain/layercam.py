"""LayerCAM (Jiang et al. 2021, IEEE TIP 30, "LayerCAM: Exploring Hierarchical Class Activation Maps
for Localization"): each activation weighed by its own positive gradient, at any layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB
from lucency.explain.layer import STEMS, first_of, layer_maps
from lucency.victims.victim import Victim


def layercam(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    layer: str | None = None,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, h, w), not negative, the layer's own cells.

    ReLU(Σ_c ReLU(∂logit/∂A_c) ⊙ A_c) (equations 6 to 8), not scaled. `layer` is a name of
    `network.named_modules()`; None = the stem. One forward, and one backward a finding down to the
    layer. Raises ConfigError for a layer that does not exist or gives no map, ModelError for a
    victim without gradients.
    """
    chosen = checked(victim, grey, findings)
    layer = layer or first_of(victim.network, STEMS)
    maps, logits = layer_maps(
        victim, grey, chosen, layer, _weigh, method="LayerCAM", budget_mb=budget_mb
    )
    return Attribution(maps, logits, chosen)


def _weigh(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.clamp(min=0) * activations).sum(dim=1).clamp(min=0)
