"""Training augmentation, on the network's input and after every cache (pitfall P8)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lucency.records import Record


class AugmentSettings(Record):
    """`[victim.augment]`. flip: probability of a horizontal flip. rotation_deg: largest angle
    either way; rotation: its probability. shift: largest shift either way, fraction of the side.
    frozen: drawn once a film and not anew in every epoch, as where a cache comes after it (the
    published experiment's choice, pitfall P8)."""

    flip: float = Field(default=0.0, ge=0, le=1)
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    rotation: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=0.0, ge=0, le=0.5)
    frozen: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether nothing is ever changed."""
        return not (self.flip or self.shift or (self.rotation_deg and self.rotation))


def augment(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """images (N, 1, H, W) in [0, 1] -> the same shape, each image with its own draw.

    Bilinear; beyond the border the edge pixels are repeated.
    """
    if settings.is_identity:
        return images
    n = len(images)
    flip, turn = _draw(n, generator) < settings.flip, _draw(n, generator) < settings.rotation
    angle = (2 * _draw(n, generator) - 1) * math.radians(settings.rotation_deg) * turn
    shift = (
        (2 * torch.stack([_draw(n, generator), _draw(n, generator)], 1) - 1) * 2 * settings.shift
    )
    mirror = torch.where(flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, shift[:, 0]], 1),
            torch.stack([sin * mirror, cos, shift[:, 1]], 1),
        ],
        1,
    ).to(images.device)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _draw(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator)
