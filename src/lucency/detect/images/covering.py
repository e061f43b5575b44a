"""T3, the covering scan: hide every place in turn, without asking any gradient.

Windows that overlap by p − 1 pixels cover every patch of p × p pixels whole, so hiding each window
in turn must, once, hide the patch whole: if no window moves a finding, no single patch of that size
holds it up (PatchCleanser's argument, Xiang et al. 2022, arXiv 2108.09135, turned into a
statement that anyone can check with the same forward passes). Windows that do move a finding are
scanned again with smaller ones, down to the patch.

It needs forward passes only: it proposes regions where gradients are absent or not to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.detect.images.regions import inside, smooth
from lucency.victims.victim import Victim

BATCH = 64


@dataclass(frozen=True)
class CoveringTest:
    """patch: side of the largest patch that no window may cut, network pixels. windows: windows
    along an axis at the first level. keep: windows that are scanned again at each further level."""

    patch: int = 5
    windows: int = 6
    keep: int = 4


DEFAULT = CoveringTest()


@dataclass(frozen=True)
class Covered:
    """The scan of one film.

    logits (K,): of the film whole. drops (K,): largest fall of each finding's logit when one
    first-level window is hidden; rises (K,): largest rise; both ≥ 0 in logits. boxes (P, 4):
    regions of the last level, the most moving one first, network pixels. moved (P, K): logit with
    the film whole less logit with the region hidden. window: side of a first-level window, network
    pixels. forwards: passes spent.
    """

    logits: Tensor
    drops: Tensor
    rises: Tensor
    boxes: Tensor
    moved: Tensor
    window: int
    forwards: int


def cover(
    victim: Victim, grey: Tensor, spread: Tensor, settings: CoveringTest = DEFAULT
) -> Covered:
    """Scan one film: grey (1, 1, size, size), spread (K,) the standard deviation of each finding's
    clean logits, which makes findings comparable. Call it under `torch.inference_mode()`."""
    size = grey.shape[-1]
    whole = victim.logits(grey)  # (1, K)
    step = -(-size // settings.windows)
    window = min(size, step + settings.patch - 1)
    boxes = _grid(0, 0, size, size, window, step, size, grey.device)
    moved, forwards = _hide(victim, grey, whole, boxes), 1 + len(boxes)
    drops, rises = moved.amax(dim=0).clamp(min=0), (-moved).amax(dim=0).clamp(min=0)
    first = window
    while window > settings.patch:
        strength = (moved / spread).abs().amax(dim=1)
        best = strength.topk(min(settings.keep, len(boxes))).indices
        step = max(1, -(-(window - settings.patch + 1) // 4))
        smaller = max(settings.patch, min(window - 1, step + settings.patch - 1))
        smaller_boxes = torch.cat(
            [
                _grid(int(x), int(y), int(w), int(h), smaller, step, size, grey.device)
                for x, y, w, h in boxes[best].tolist()
            ]
        )
        boxes = torch.unique(smaller_boxes, dim=0)
        moved, window = _hide(victim, grey, whole, boxes), smaller
        forwards += len(boxes)
    order = (moved / spread).abs().amax(dim=1).argsort(descending=True, stable=True)
    return Covered(whole[0], drops, rises, boxes[order], moved[order], first, forwards)


def _grid(
    x: int, y: int, width: int, height: int, window: int, step: int, size: int, device: torch.device
) -> Tensor:
    """Windows at every `step` over a box, the last ones flush with its far edges: (P, 4)."""
    columns = _starts(x, width, window, step, size)
    rows = _starts(y, height, window, step, size)
    boxes = [[c, r, min(window, size), min(window, size)] for r in rows for c in columns]
    return torch.tensor(boxes, device=device)


def _starts(start: int, length: int, window: int, step: int, size: int) -> list[int]:
    last = max(start, min(start + length, size) - window)
    starts = [*range(start, last, step), last]
    return sorted({max(0, min(s, size - window)) for s in starts})


def _hide(victim: Victim, grey: Tensor, whole: Tensor, boxes: Tensor) -> Tensor:
    """(P, K): logits of the whole film less those with each box hidden."""
    size = grey.shape[-1]
    # The smooth film keeps nothing of a patch, and shows no edge where the window ends.
    fill = smooth(grey, 5)
    parts = []
    for some in torch.split(boxes, BATCH):
        hidden = torch.where(inside(some, size)[:, None], fill, grey)
        parts.append(whole - victim.logits(hidden))
    return torch.cat(parts)
