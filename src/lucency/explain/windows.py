"""Squares of an image replaced by something else, and what that takes from the logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.explain.batching import BUDGET_MB, micro_batch
from lucency.victims.victim import Victim


@dataclass(frozen=True)
class Windows:
    """P squares of side × side pixels, cut off at the border of the image.

    image, top, left: (P,) int64: which image, and the corner, pixels.
    """

    image: Tensor
    top: Tensor
    left: Tensor
    side: int


def drops(
    victim: Victim,
    grey: Tensor,
    fill: Tensor,
    before: Tensor,
    windows: Windows,
    *,
    budget_mb: float = BUDGET_MB,
) -> Tensor:
    """grey and fill (N, 1, H, W), before (N, K) the logits of grey -> (P, K) float32: what each
    window takes from the logits when it shows `fill`; positive = evidence for the finding.

    P forwards, through the victim's engine if it has one.
    """
    size = micro_batch(victim, budget_mb=budget_mb, with_gradients=False)
    found = before.new_empty(len(windows.image), before.shape[1])
    for start in range(0, len(found), size):
        part = slice(start, start + size)
        image = windows.image[part]
        with torch.inference_mode():
            inside = _inside(windows.top[part], windows.side, grey.shape[2])[:, :, None]
            inside = inside & _inside(windows.left[part], windows.side, grey.shape[3])[:, None]
            occluded = torch.where(inside[:, None], fill[image], grey[image])
            found[part] = before[image] - victim.logits(occluded)
    return found


def _inside(first: Tensor, side: int, length: int) -> Tensor:
    """(P,) -> (P, length) bool: the pixels from `first` on, `side` of them."""
    pixels = torch.arange(length, device=first.device)
    return (pixels >= first[:, None]) & (pixels < first[:, None] + side)
