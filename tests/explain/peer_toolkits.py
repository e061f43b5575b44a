"""Other toolkits as oracles; pytorch-grad-cam imports torchvision, whose compiled operators may be
missing where torch was built without them."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from lucency.victims.victim import Victim

_operators: list[torch.library.Library] = []
"""A library's definitions live as long as it does."""


class Logits(nn.Module):
    """grey (N, 1, H, W) in [0, 1] -> logits (N, K), for toolkits that take a module."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.network = victim, victim.network

    def forward(self, grey: Tensor) -> Tensor:
        return self.victim.logits(grey)


def captum() -> ModuleType:
    return pytest.importorskip("captum.attr")


def grad_cam_toolkit() -> ModuleType:
    """Skips the test, with the reason, where the toolkit cannot be imported."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
    try:
        import pytorch_grad_cam
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"pytorch-grad-cam does not import: {error}")
    return pytorch_grad_cam
