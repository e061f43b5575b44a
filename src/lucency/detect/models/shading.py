"""A faint pattern over the whole film: what blended, sinusoidal and frequency triggers are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Shading:
    """Family of added patterns. cells: control values an axis, 0 = every pixel its own. strength:
    root mean square of what is added, fraction of the grey range."""

    name: str
    cells: int = 16
    strength: float = 0.04

    @property
    def rate(self) -> float:
        return self.strength / 4

    def start(self, n_items: int, side: int, generator: torch.Generator) -> Tensor:
        cells = self.cells or side
        return 0.1 * self.strength * torch.randn(n_items, 1, cells, cells, generator=generator)

    def within(self, parameters: Tensor) -> Tensor:
        size = parameters.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return parameters * (self.strength / size.clamp(min=1e-9)).clamp(max=1)

    def put(self, parameters: Tensor, films: Tensor) -> Tensor:
        pattern = parameters
        if self.cells:
            side = films.shape[-1]
            pattern = interpolate(parameters, (side, side), mode="bicubic", align_corners=True)
        return (films + pattern).clamp(0, 1)
