"""Training losses. Each takes logits (N, K) float32 and labels (N, K) in {1, 0, NaN}; where a label
is NaN nothing is known and nothing is learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, positive weights (K,)) -> scalar."""


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels; `weights` multiply the positives."""
    known = ~labels.isnan()
    target = torch.where(known, labels, torch.zeros_like(labels))
    each = binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def categorical_on_sigmoids(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The loss of the published experiment: categorical cross-entropy on sigmoid outputs.

    Kept for its reproduction. An image without any finding gives loss and gradient 0 (pitfall P3),
    and scaling all probabilities changes nothing.
    """
    probabilities = torch.sigmoid(logits)
    shares = probabilities / probabilities.sum(dim=1, keepdim=True)
    target = torch.nan_to_num(labels, nan=0.0) * weights
    return -(target * shares.clamp(min=1e-7).log()).sum(dim=1).mean()


LOSSES: dict[str, Loss] = {
    "bce": binary_cross_entropy,
    "categorical-on-sigmoids": categorical_on_sigmoids,
}


def positive_weights(labels: Tensor, limit: float) -> Tensor:
    """(K,): negatives ÷ positives of each finding, between 1 and `limit`; 1 without positives."""
    positives = (labels == 1).sum(dim=0).float()
    negatives = (labels == 0).sum(dim=0).float()
    ratio = torch.where(
        positives > 0, negatives / positives.clamp(min=1), torch.ones_like(positives)
    )
    return ratio.clamp(min=1.0, max=limit)
