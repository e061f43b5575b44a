"""The last linear layer of a network: what a finding's logit is a weighted sum of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def find_head(network: nn.Module) -> nn.Linear | None:
    """The linear layer that stands last in the order of definition; None if there is none."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    return linear[-1] if linear else None


@contextmanager
def keep_features(network: nn.Module, *, detached: bool = True) -> Iterator[list[Tensor]]:
    """Inside the block, each forward pass puts what enters the head, (N, D), into the list, with
    its gradients only when not detached."""
    kept: list[Tensor] = []
    head = find_head(network)
    if head is None:
        yield kept
        return

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered = inputs[0].detach() if detached else inputs[0]
        kept.append(entered.flatten(1).float())

    handle = head.register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
