"""Small regions of a film: where to look, what to put there instead.

Boxes are int64 (…, 4): x, y, width, height, network pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from lucency.explain.median import median_filter


def smooth(grey: Tensor, scale: int) -> Tensor:
    """grey (N, 1, H, W) -> the film without structures of `scale` × `scale` pixels and smaller.

    A median of 5 px deletes 3 px, one of 7 px deletes 4 px and all but the middle pixel of 5 px;
    larger ones are taken on the film at a half, a quarter… of its resolution.
    """
    if scale <= 3:
        return median_filter(grey, 5)
    if scale <= 4:
        return median_filter(grey, 7)
    height, width = grey.shape[2:]
    even = pad(grey, (0, width % 2, 0, height % 2), mode="replicate")
    if min(even.shape[2:]) < 16:
        return median_filter(grey, 7)
    half = smooth(avg_pool2d(even, 2), (scale + 1) // 2)
    full = interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
    return full[..., :height, :width]


def peaks(attribution: Tensor, scale: int, count: int) -> Tensor:
    """attribution (N, 1, H, W) -> the `count` boxes of side `scale`, apart from each other, with
    the largest absolute sum: (N, count, 4)."""
    sums = avg_pool2d(attribution, scale, stride=1).abs()[:, 0]  # index = top left corner
    n, _, width = sums.shape
    found = []
    for _ in range(count):
        at = sums.flatten(1).argmax(dim=1)
        y, x = at // width, at % width
        side = torch.full_like(x, scale)
        found.append(torch.stack([x, y, side, side], dim=1))
        spot = torch.zeros_like(sums)
        spot[torch.arange(n), y, x] = 1.0
        near = max_pool2d(spot[:, None], 2 * scale + 1, stride=1, padding=scale)[:, 0]
        sums = sums.masked_fill(near > 0, -1.0)
    return torch.stack(found, dim=1)


def inside(boxes: Tensor, size: int) -> Tensor:
    """(…, size, size) bool of boxes (…, 4)."""
    line = torch.arange(size, device=boxes.device)
    x, y, w, h = (boxes[..., i, None] for i in range(4))
    columns = (line >= x) & (line < x + w)
    rows = (line >= y) & (line < y + h)
    return rows[..., :, None] & columns[..., None, :]


def apart(boxes: Tensor) -> Tensor:
    """boxes (N, P, 4) -> (N, P, P) bool: the two do not touch."""
    x, y, w, h = (boxes[..., i] for i in range(4))
    beside = (x[:, :, None] > (x + w)[:, None]) | (x[:, None] > (x + w)[:, :, None])
    above = (y[:, :, None] > (y + h)[:, None]) | (y[:, None] > (y + h)[:, :, None])
    return beside | above


def repeated(boxes: Tensor) -> Tensor:
    """boxes (N, P, 4) -> (N, P) bool: the same box stands earlier in the list."""
    same = (boxes[:, :, None] == boxes[:, None]).all(dim=3)
    return same.tril(-1).any(dim=2)


def ring_fill(grey: Tensor, boxes: Tensor) -> Tensor:
    """grey (N, 1, H, W), boxes (N, P, 4) -> (N, P, 1, 1): the mean of the ring, 2 px wide, around
    each box."""
    size = grey.shape[-1]
    grown = boxes.clone()
    grown[..., :2] -= 2
    grown[..., 2:] += 4
    ring = inside(grown, size) & ~inside(boxes, size)
    total = (grey * ring).sum(dim=(2, 3), keepdim=True)
    return total / ring.sum(dim=(2, 3), keepdim=True)
