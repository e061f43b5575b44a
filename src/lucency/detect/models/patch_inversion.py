"""A small square whose grey values are learned, at a place that a stamp scan has found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.records import IntArray


@dataclass(frozen=True)
class Patch:
    """Family of squares of `side` pixels. corners (I, 2): y and x of each, network pixels."""

    side: int
    corners: IntArray
    name: str = "patch"
    rate: float = 0.15

    def start(self, n_items: int, side: int, generator: torch.Generator) -> Tensor:
        """(I, 2 + side²): the corner, which stays, and grey values about the middle."""
        grey = 0.5 + 0.2 * torch.randn(n_items, self.side**2, generator=generator)
        return torch.cat([torch.from_numpy(self.corners).float(), grey], dim=1)

    def within(self, parameters: Tensor) -> Tensor:
        # No gradient reaches the corner.
        return torch.cat([parameters[:, :2], parameters[:, 2:].clamp(0, 1)], dim=1)

    def put(self, parameters: Tensor, films: Tensor) -> Tensor:
        size = films.shape[-1]
        line = torch.arange(size, device=films.device)
        y, x = (line - parameters[:, i, None].detach().round().long() for i in (0, 1))
        inside = ((y >= 0) & (y < self.side))[:, :, None] & ((x >= 0) & (x < self.side))[:, None]
        at = y.clamp(0, self.side - 1)[:, :, None] * self.side + x.clamp(0, self.side - 1)[:, None]
        grey = parameters[:, 2:].gather(1, at.flatten(1)).view(-1, size, size)
        return torch.where(inside[:, None], grey[:, None], films)
