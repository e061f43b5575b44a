"""A layer's activations and the gradients of findings' logits by them: what class activation maps
are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lucency.errors import ConfigError
from lucency.explain.batching import BUDGET_MB, batches
from lucency.explain.gradients import with_gradients
from lucency.victims.victim import Victim

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Activations (N, C, h, w) and the gradients by them, both float32 -> maps (N, h, w)."""

LAST_LAYERS = ("features.norm5", "features.norm", "layer4")
"""What the last map is called in the families of networks that name it."""
STEMS = ("features.relu0", "features.norm0", "relu", "act1", "act", "bn1")
"""What the first map after a convolution is called there; its cells are the finest."""


def layer_maps(
    victim: Victim,
    grey: Tensor,
    findings: tuple[int, ...],
    layer: str,
    weigh: Weigh,
    *,
    method: str,
    budget_mb: float = BUDGET_MB,
) -> tuple[Tensor, Tensor]:
    """grey (N, 1, H, W) -> maps (N, F, h, w) float32 in the layer's cells, logits (N, K) float32.

    One forward, and for each finding one backward, from the logit to the layer and no further.
    Raises ConfigError for a layer that does not exist or gives no map, ModelError for a victim
    without gradients.
    """
    with with_gradients(victim, method) as differentiable:
        parts = [
            _layer_maps(differentiable, grey[part], findings, layer, weigh)
            for part in batches(victim, len(grey), budget_mb=budget_mb)
        ]
    maps, logits = zip(*parts, strict=True)
    return torch.cat(maps), torch.cat(logits)


def _layer_maps(
    victim: Victim, grey: Tensor, findings: tuple[int, ...], layer: str, weigh: Weigh
) -> tuple[Tensor, Tensor]:
    with keep_leaf(victim.network, layer) as kept:
        logits = victim.logits(grey.detach())
    if not kept or kept[-1].ndim != 4:
        came = tuple(kept[-1].shape) if kept else "nothing"
        raise ConfigError(
            f"[explain] layer must give a map (N, C, h, w), but {layer!r} gives {came}."
        )
    values = kept[-1].detach().float()
    maps = []
    for finding in findings:
        gradient = victim.gradient(logits[:, finding].sum(), kept[-1])
        maps.append(weigh(values, gradient.float()))
    return torch.stack(maps, dim=1), logits.detach()


@contextmanager
def keep_leaf(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Inside the block, each output of the layer is put into the list, as a leaf that gradients
    flow to. Of a layer that is called more than once, the last call is the last of the list."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_(True))
        # A copy goes on: a later in-place ReLU must not change what was kept.
        return kept[-1].clone()

    handle = find_layer(network, layer).register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def find_layer(network: nn.Module, layer: str) -> nn.Module:
    """The module of that name in `network.named_modules()`.

    Raises ConfigError with names that exist.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if layer not in modules:
        tops = [n for n in modules if n.count(".") == 1 and n.startswith("features")]
        tops = tops or [n for n in modules if n and "." not in n]
        raise ConfigError(
            f"[explain] layer must name a module of the network (such as {', '.join(tops)}), "
            f"got {layer!r}."
        )
    return modules[layer]


def first_of(network: nn.Module, names: tuple[str, ...]) -> str:
    """The first module that has one of the names, alone or after a dot; earlier names first.

    Raises ConfigError if there is none.
    """
    modules: list[str] = [name for name, _ in network.named_modules()]
    for name in names:
        for module in modules:
            if module == name or module.endswith(f".{name}"):
                return module
    children = ", ".join(name for name, _ in network.named_children())
    raise ConfigError(
        f"This network has no layer called {' or '.join(names)}; name a layer that gives a map "
        f"(its parts are {children})."
    )
