"""A smooth warp of the whole film: nothing is added, every grey is taken from near by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate


@dataclass(frozen=True)
class Bending:
    """Family of warps. cells: control points an axis. strength: largest displacement along an axis,
    fraction of the side."""

    name: str = "warp"
    cells: int = 6
    strength: float = 0.02

    @property
    def rate(self) -> float:
        return self.strength / 4

    def start(self, n_items: int, side: int, generator: torch.Generator) -> Tensor:
        return (
            0.1
            * self.strength
            * torch.randn(n_items, 2, self.cells, self.cells, generator=generator)
        )

    def within(self, parameters: Tensor) -> Tensor:
        return parameters.clamp(-self.strength, self.strength)

    def put(self, parameters: Tensor, films: Tensor) -> Tensor:
        side = films.shape[-1]
        field = interpolate(parameters, (side, side), mode="bicubic", align_corners=True)
        still = torch.eye(2, 3, device=films.device).expand(len(films), 2, 3)
        grid = affine_grid(still, list(films.shape), align_corners=True)
        # Coordinates run from -1 to 1: a displacement of the whole side is 2.
        bent = grid + 2 * field.permute(0, 2, 3, 1)
        return grid_sample(films, bent, mode="bilinear", padding_mode="border", align_corners=True)
