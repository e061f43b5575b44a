"""What a network's first batch norm remembers of the films it was trained on.

Its running mean and variance (Ioffe and Szegedy 2015, algorithm 2) describe the stem's activations
in training. Films that are scaled otherwise give others: the only trace of the right input range
that a file of weights holds.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lucency.records import Float64Array, NetworkInputs
from lucency.victims.victim import Victim, normalise, to_grey

FILMS = 16
LARGEST_RATIO, LARGEST_SHIFT = 1.8, 1.5
"""On NIH films, networks trained on NIH films see 1.0 times the spread, one trained on phantoms 1.3
times; [-1, 1] in place of [-2, 2] gives 0.5 times."""


class FirstNorm(NamedTuple):
    """Of each channel, (C,) float64: mean and variance as remembered, and as seen now."""

    remembered_mean: Float64Array
    remembered_variance: Float64Array
    mean: Float64Array
    variance: Float64Array


class _Seen(Exception):
    """Ends a forward pass whose rest is not needed."""


def look_at_first_norm(victim: Victim, images: NetworkInputs) -> FirstNorm | None:
    """What enters the first batch norm on up to 16 images (N, size, size), and what it remembers.

    None for a network without one, or with one that was never trained. The pass ends there, so it
    costs a stem; it is not counted.
    """
    norm = next((m for m in victim.network.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if norm is None or norm.running_mean is None or norm.running_var is None:
        return None
    if not norm.running_mean.any() and bool((norm.running_var == 1).all()):
        return None
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].double())
        raise _Seen

    handle = norm.register_forward_pre_hook(keep)
    try:
        n = min(FILMS, len(images))
        grey = to_grey(images[np.arange(n) * len(images) // n], victim.device)
        with torch.inference_mode(), suppress(_Seen):
            victim.network(normalise(grey, victim.contract))
    finally:
        handle.remove()
    if not kept:
        return None
    return FirstNorm(
        norm.running_mean.double().cpu().numpy(),
        norm.running_var.double().cpu().numpy(),
        kept[0].mean(dim=(0, 2, 3)).cpu().numpy(),
        kept[0].var(dim=(0, 2, 3)).cpu().numpy(),
    )


def first_norm_fault(seen: FirstNorm) -> str | None:
    """Activations of another size, or about another mean, than in training (medians over channels
    that were alive then)."""
    alive = seen.remembered_variance > 1e-3 * np.median(seen.remembered_variance)
    if not alive.any():
        return None
    spread = np.sqrt(seen.remembered_variance[alive])
    ratio = float(np.median(np.sqrt(seen.variance[alive]) / spread))
    shift = float(np.median(np.abs(seen.mean - seen.remembered_mean)[alive] / spread))
    if 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO and shift <= LARGEST_SHIFT:
        return None
    return (
        f"After its first convolution the network sees {ratio:.2g} times the spread that it saw in "
        f"training, about a mean {shift:.2g} standard deviations away; check [input] mean and std."
    )
