"""Copies of a network whose last batch normalisations are louder, made in place and undone.

What IBD-PSC (arXiv 2405.09786) calls parameter-oriented scaling. No copy of the network is held:
the parameters are multiplied for the length of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lucency.errors import ModelError
from lucency.records import Float64Array, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

BATCH = 64
LARGE = 1e30


def batch_norms(victim: Victim, images: NetworkInputs) -> tuple[str, ...]:
    """Names of the BN layers with weights, in the order of their last use in a forward pass.

    Raises ModelError if there is none.
    """
    used: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: used.append(name))
        for name, module in victim.network.named_modules()
        if isinstance(module, _BatchNorm) and module.affine
    ]
    try:
        plain_logits(victim, images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not used:
        raise ModelError(
            "IBD-PSC scales batch normalisations and expected a network with some, got "
            f"{type(victim.network).__name__} without; use another detector."
        )
    return tuple(reversed(dict.fromkeys(reversed(used))))


@contextmanager
def amplified(layers: Sequence[_BatchNorm], factor: float) -> Iterator[None]:
    """Inside the block, weight and bias of the layers are `factor`-fold; on any exit, every bit is
    as it was."""
    chosen = {id(p): p for layer in layers for p in (layer.weight, layer.bias) if p is not None}
    before = [(p, p.detach().clone()) for p in chosen.values()]
    try:
        with torch.inference_mode():
            for parameter in chosen.values():
                parameter.mul_(factor)
        yield
    finally:
        with torch.inference_mode():
            for parameter, value in before:
                parameter.copy_(value)


def amplified_logits(
    victim: Victim, images: NetworkInputs, layers: tuple[str, ...], depth: int, factor: float
) -> Float64Array:
    """Logits (N, K) of the copy whose last `depth` layers are amplified."""
    named = dict(victim.network.named_modules())
    chosen = [named[name] for name in layers[-depth:]]
    with amplified([layer for layer in chosen if isinstance(layer, _BatchNorm)], factor):
        return plain_logits(victim, images)


def plain_logits(victim: Victim, images: NetworkInputs) -> Float64Array:
    """(N, K); what overflows in an amplified copy becomes large, what cancels 0."""
    parts = [np.zeros((0, len(victim.findings)))]
    with torch.inference_mode(), frozen(victim.network):
        for start in range(0, len(images), BATCH):
            grey = to_grey(images[start : start + BATCH], victim.device)
            parts.append(victim.logits(grey).double().cpu().numpy())
    return np.nan_to_num(np.concatenate(parts), posinf=LARGE, neginf=-LARGE)
