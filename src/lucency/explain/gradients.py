"""Gradients of findings' logits by the pixels: one forward serves all findings.

The findings' backwards run one after the other through the same graph: carried as one batch
(`is_grads_batched`), they took three times as long (DenseNet-121, 224 px, 14 findings, CPU).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from lucency.errors import ModelError
from lucency.explain.batching import BUDGET_MB, batches
from lucency.victims.victim import Victim, frozen


@contextmanager
def with_gradients(victim: Victim, method: str) -> Iterator[Victim]:
    """The victim with its network frozen, without its engine, and with gradients enabled.

    Raises ModelError for a victim that is not differentiable.
    """
    if not victim.differentiable:
        raise ModelError(
            f"{method} needs gradients, and this model has none; use a method that works by "
            "perturbation: occlusion or rise."
        )
    with frozen(victim.network), torch.inference_mode(False), torch.enable_grad():
        yield replace(victim, engine=None)


def pixel_gradients(
    victim: Victim, grey: Tensor, findings: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """grey (N, 1, H, W) -> ∂logit/∂pixel (N, F, H, W) float32 and logits (N, K) float32.

    One forward, and one backward a finding. To be called inside `with_gradients`.
    """
    # A copy, because a tensor made in inference mode can never require gradients.
    image = grey.detach().clone().requires_grad_(True)
    logits = victim.logits(image)
    maps = torch.empty(len(grey), len(findings), *grey.shape[2:], device=grey.device)
    for i, finding in enumerate(findings):
        maps[:, i] = victim.gradient(logits[:, finding].sum(), image)[:, 0]
    return maps, logits.detach()


def gradients(
    victim: Victim,
    grey: Tensor,
    findings: tuple[int, ...],
    *,
    method: str,
    budget_mb: float = BUDGET_MB,
) -> tuple[Tensor, Tensor]:
    """`pixel_gradients`, as many images at a time as the budget of memory holds."""
    with with_gradients(victim, method) as differentiable:
        parts = [
            pixel_gradients(differentiable, grey[part], findings)
            for part in batches(victim, len(grey), budget_mb=budget_mb)
        ]
    maps, logits = zip(*parts, strict=True)
    return torch.cat(maps), torch.cat(logits)
