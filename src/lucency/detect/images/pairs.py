"""Forward passes over every pair of N images and M copies, in micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lucency.records import Float64Array
from lucency.victims.victim import Victim, frozen

MICRO_BATCH = 64
"""Images in one forward pass: enough to keep two cores busy, and memory bounded."""

Compose = Callable[[Tensor, Tensor], Tensor]
"""(image (B,) int64, copy (B,) int64) -> what is sent forward for each pair, grey (B, 1, H, W)."""


def pair_logits(victim: Victim, n_images: int, n_copies: int, compose: Compose) -> Float64Array:
    """Logits (N, M, K) of each copy of each image, all findings from the same pass.

    `compose` makes only as many copies at a time as fit into a micro-batch, so that memory depends
    neither on N nor on M.
    """
    n_pairs = n_images * n_copies
    parts = [np.zeros((0, len(victim.findings)))]
    with torch.inference_mode(), frozen(victim.network):
        for start in range(0, n_pairs, MICRO_BATCH):
            at = torch.arange(start, min(start + MICRO_BATCH, n_pairs), device=victim.device)
            grey = compose(at // n_copies, at % n_copies)
            parts.append(victim.logits(grey).double().cpu().numpy())
    return np.concatenate(parts).reshape(n_images, n_copies, len(victim.findings))
