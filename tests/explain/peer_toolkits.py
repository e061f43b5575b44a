"""Other toolkits as oracles; pytorch-grad-cam imports torchvision."""

from __future__ import annotations

from types import ModuleType

import pytest
from torch import Tensor, nn

from foreign_packages import torchvision_or_skip
from lucency.victims.victim import Victim


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
    torchvision_or_skip()
    return pytest.importorskip("pytorch_grad_cam")
