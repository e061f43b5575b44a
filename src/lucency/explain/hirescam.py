"""HiResCAM (Draelos & Carin 2020, arXiv 2011.08891): Grad-CAM without the averaging of gradients
over the map, which is what throws away the place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lucency.explain.attribution import Attribution, checked
from lucency.explain.batching import BUDGET_MB
from lucency.explain.layer import STEMS, first_of, layer_maps
from lucency.victims.victim import Victim


def hirescam(
    victim: Victim,
    grey: Tensor,
    findings: Sequence[int],
    *,
    layer: str | None = None,
    budget_mb: float = BUDGET_MB,
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, h, w), signed, the layer's own cells.

    Σ_c ∂logit/∂A_c ⊙ A_c, with both signs: evidence against a finding is kept. `layer` is a name
    of `network.named_modules()`; None = the stem, whose cells are small enough to point at a
    trigger. One forward, and one backward a finding down to the layer. Raises ConfigError for a
    layer that does not exist or gives no map, ModelError for a victim without gradients.
    """
    chosen = checked(victim, grey, findings)
    layer = layer or first_of(victim.network, STEMS)
    maps, logits = layer_maps(
        victim, grey, chosen, layer, _weigh, method="HiResCAM", budget_mb=budget_mb
    )
    return Attribution(maps, logits, chosen)


def _weigh(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * activations).sum(dim=1)
