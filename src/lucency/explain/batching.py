"""How many images go through a network at once: as many as a budget of memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lucency.victims.victim import Victim, frozen, normalise

BUDGET_MB = 1024.0
LARGEST = 64
"""More images at once are not faster."""
UNKNOWN = 16
"""For a model whose activations cannot be seen."""
HELD_WITHOUT_GRADIENTS = 4
"""Activations that live at the same time in a pass without gradients, of the largest size: input,
output, and the concatenation that some networks make of them."""

_Measured = dict[tuple[int, bool], tuple[int, int]]
_measured: WeakKeyDictionary[nn.Module, _Measured] = WeakKeyDictionary()


def micro_batch(
    victim: Victim, *, budget_mb: float = BUDGET_MB, with_gradients: bool = True
) -> int:
    """The number of images, 1 to LARGEST, whose activations fit into `budget_mb` (2²⁰ bytes).

    With gradients all activations of a pass live together; without, the largest few. Estimated
    from what one blank image makes of the network, once for each network: that pass is not
    counted, nor does it use the victim's engine. UNKNOWN for a victim without gradients, which may
    have no network to look into.
    """
    if not victim.differentiable:
        return UNKNOWN
    together, largest = _bytes(victim)
    needed = together if with_gradients else HELD_WITHOUT_GRADIENTS * largest
    return max(1, min(LARGEST, int(budget_mb * 2**20 / max(needed, 1))))


def batches(
    victim: Victim, n: int, *, budget_mb: float = BUDGET_MB, with_gradients: bool = True
) -> Iterator[slice]:
    """Slices of `n` images, in order, of `micro_batch` images each; one is not measured."""
    size = 1
    if n > 1:
        size = micro_batch(victim, budget_mb=budget_mb, with_gradients=with_gradients)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def tiles(
    victim: Victim,
    n: int,
    n_samples: int,
    *,
    budget_mb: float = BUDGET_MB,
    with_gradients: bool = True,
) -> Iterator[tuple[slice, slice]]:
    """Slices of `n` images, and for each of them slices of `n_samples` versions of every image, of
    at most `micro_batch` versions together."""
    size = micro_batch(victim, budget_mb=budget_mb, with_gradients=with_gradients)
    at_once = max(1, size // n)
    for start in range(0, n, size):
        for first in range(0, n_samples, at_once):
            yield (
                slice(start, min(start + size, n)),
                slice(first, min(first + at_once, n_samples)),
            )


def logits_of(victim: Victim, grey: Tensor, *, budget_mb: float = BUDGET_MB) -> Tensor:
    """grey (N, 1, H, W) -> logits (N, K) float32 without gradients, micro-batch by micro-batch.

    Computed by the victim's engine, if it has one. The network's mode is the caller's business.
    """
    with torch.inference_mode():
        parts = [
            victim.logits(grey[part])
            for part in batches(victim, len(grey), budget_mb=budget_mb, with_gradients=False)
        ]
    # Outside the block, so that the caller gets an ordinary tensor.
    return torch.cat(parts)


def _bytes(victim: Victim) -> tuple[int, int]:
    """Bytes of activations of one image: all together, and the largest."""
    known = _measured.setdefault(victim.network, {})
    key = (victim.contract.size, victim.bf16)
    if key not in known:
        sizes = _activations(victim)
        known[key] = (sum(sizes), max(sizes, default=0))
    return known[key]


def _activations(victim: Victim) -> list[int]:
    """Bytes of what each innermost module reads and writes, without counting a tensor twice."""
    # Kept until the end, so that an address stands for one tensor.
    seen: dict[int, Tensor] = {}

    def count(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for value in (*inputs, output):
            if isinstance(value, Tensor):
                seen.setdefault(value.data_ptr(), value)

    with ExitStack() as stack, frozen(victim.network), torch.inference_mode():
        for module in victim.network.modules():
            if not any(module.children()):
                stack.callback(module.register_forward_hook(count).remove)
        side = victim.contract.size
        blank = torch.zeros(1, 1, side, side, device=victim.device)
        with torch.autocast(victim.device.type, torch.bfloat16, enabled=victim.bf16):
            victim.network(normalise(blank, victim.contract))
    return [value.nbytes for value in seen.values()]
