"""The networks that a run may train. A new one is one function and one line in the table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.nets.densenet import DenseNet as MonaiDenseNet
from torch import Tensor, nn

from lucency.errors import ConfigError


class DenseNet(MonaiDenseNet):  # type: ignore[misc]
    """MONAI's DenseNet (Huang et al. 2017) whose head always computes in float32.

    Under bf16 autocast a bf16 head rounds logits to 8 bits: ties in every ranking, and steps as
    large as the effects that a detector looks for.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) float -> logits (N, K) float32."""
        features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.class_layers(features.float())
        return logits


def _densenet121(channels: int, n_findings: int) -> nn.Module:
    return DenseNet(2, channels, n_findings, 64, 32, (6, 12, 24, 16))


def _densenet_small(channels: int, n_findings: int) -> nn.Module:
    """The same family with 43 layers and 0.4 M weights, for demonstrations on a laptop."""
    return DenseNet(2, channels, n_findings, 32, 16, (3, 6, 8, 6))


ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {
    "densenet121": _densenet121,
    "densenet-small": _densenet_small,
}


SMALLEST_INPUT = 32
"""Pixels: both networks halve their input five times."""


def require_size(size: int) -> None:
    """Raise ConfigError for an input that the networks cannot halve as often as they do."""
    if size < SMALLEST_INPUT:
        raise ConfigError(
            f"[input] size must be at least {SMALLEST_INPUT} pixels for a network to train, "
            f"got {size}."
        )


def build(name: str, channels: int, n_findings: int, seed: int) -> nn.Module:
    """A fresh network, its weights drawn from the seed; the global generator is left alone."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {name!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[name](channels, n_findings)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in the layout that convolutions are fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
