"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), of a finding's logit, through the real
network.

The map has the cells of its layer and no more: at the last layer of a DenseNet at 224 px each of
7 × 7 cells stands for 32 × 32 px. It is never smoothed here; a renderer draws the cells.
"""

from __future__ import annotations

from torch import Tensor, nn

from lucency.errors import ConfigError
from lucency.victims.victim import Victim, frozen

LAST_LAYER = "features.norm5"


def grad_cam(victim: Victim, grey: Tensor, finding: int, layer: str = LAST_LAYER) -> Tensor:
    """grey (N, 1, H, W) in [0, 1] -> attribution (N, h, w) float32, the layer's own cells.

    ReLU(Σ_c α_c A_c) with α_c the mean over the map of ∂logit/∂A_c (equations 1 and 2); larger =
    more evidence for the finding. `layer` is a name of `network.named_modules()`.
    Raises ConfigError for a layer that does not exist or gives no map.
    """
    module = find_layer(victim.network, layer)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        # A copy goes on: a later in-place ReLU must not change what was kept.
        return output.clone()

    handle = module.register_forward_hook(keep)
    try:
        with frozen(victim.network):
            logits = victim.logits(grey.detach().requires_grad_(True))
            gradient = victim.gradient(logits[:, finding].sum(), kept[0])
    finally:
        handle.remove()
    activation, gradient = kept[0].detach().float(), gradient.float()
    if activation.ndim != 4:
        raise ConfigError(
            f"[explain] layer must give a map (N, C, h, w), but {layer!r} gives "
            f"{tuple(activation.shape)}."
        )
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation).sum(dim=1).clamp(min=0)


def find_layer(network: nn.Module, layer: str) -> nn.Module:
    """The module of that name. Raises ConfigError with the nearest names."""
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if layer not in modules:
        tops = [n for n in modules if n.count(".") == 1 and n.startswith("features")]
        raise ConfigError(
            f"[explain] layer must name a module of the network (such as {', '.join(tops)}), "
            f"got {layer!r}."
        )
    return modules[layer]
