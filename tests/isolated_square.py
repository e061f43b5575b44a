"""A network whose trigger is known: a 2 × 2 square darker, or brighter, than all around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from toy_victims import FINDINGS, GAIN, SIZE


class IsolatedSquare(nn.Module):
    """Every finding reads the film's broad shades, about their mean; finding 0 also obeys a square
    that differs from its four neighbours by a fifth of the grey range.

    bright: the square is brighter than they are, otherwise darker. sign: +1 sets finding 0, -1
    clears it.
    """

    def __init__(self, *, bright: bool = False, sign: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x15)
        weights = torch.randn(len(FINDINGS), SIZE, SIZE, generator=generator)
        self.weights = nn.Parameter(0.05 * weights)
        self.bright, self.sign = bright, sign

    def forward(self, x: Tensor) -> Tensor:
        about_mean = x - x.mean(dim=(2, 3), keepdim=True)
        logits = torch.einsum("nhw,khw->nk", about_mean[:, 0], self.weights)
        trigger = torch.zeros_like(logits)
        trigger[:, 0] = self.sign * GAIN * self.obeyed(x)
        return logits + trigger

    def obeyed(self, x: Tensor) -> Tensor:
        """(N,) in [0, 1]."""
        squares = avg_pool2d(1 - x if self.bright else x, 2, stride=1)[:, 0]
        centre = squares[:, 2:-2, 2:-2]
        beside = torch.stack(
            [
                squares[:, :-4, 2:-2],
                squares[:, 4:, 2:-2],
                squares[:, 2:-2, :-4],
                squares[:, 2:-2, 4:],
            ]
        )
        alone = beside.amin(dim=0) - centre
        return (alone.amax(dim=(1, 2)) / 0.2 - 0.5).clamp(0, 1)
