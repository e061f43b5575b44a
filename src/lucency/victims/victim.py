"""A classifier and its input contract: what every later stage asks for logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ModelError
from lucency.progress import Progress, silent
from lucency.records import FloatArray, NetworkInputs
from lucency.victims.head import keep_features

Outputs = Literal["logits", "probabilities"]
Engine = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""A forward pass without gradients: normalised batch (N, C, size, size) float32 -> the network's
outputs (N, K') and what enters its last layer (N, D), or None where that cannot be had."""

# Probabilities are read as logits within ± this; float32 has no probability nearer to 0 or 1.
LARGEST_LOGIT = 16.0


@dataclass
class Passes:
    """Images sent forward and backward through a network."""

    forwards: int = 0
    backwards: int = 0

    def since(self, before: Passes) -> Passes:
        """Those that came after `before`, a copy taken then."""
        return Passes(self.forwards - before.forwards, self.backwards - before.backwards)

    @property
    def equivalents(self) -> float:
        """In forward passes; a backward costs about two."""
        return self.forwards + 2.0 * self.backwards


@dataclass(frozen=True)
class Victim:
    """A network in evaluation mode, what enters it, and what its outputs mean.

    network: (N, C, size, size) normalised float -> outputs (N, K'), logits or probabilities as
    `outputs` says. columns: the output behind each of the K `findings`; None = the first K, in
    order. bf16: compute the convolutions in bfloat16 (logits stay float32). engine: computes the
    passes without gradients, in place of the network. differentiable: whether the network has
    gradients at all.
    """

    network: nn.Module
    contract: InputContract
    findings: tuple[str, ...]
    bf16: bool = False
    outputs: Outputs = "logits"
    columns: tuple[int, ...] | None = None
    engine: Engine | None = None
    differentiable: bool = True
    passes: Passes = field(default_factory=Passes)

    @property
    def device(self) -> torch.device:
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def logits(self, grey: Tensor) -> Tensor:
        """grey (N, 1, size, size) float32, fraction of the stored range -> (N, K) float32 logits.

        Differentiable in `grey`, if gradients are enabled and `grey` requires them; the caller
        decides on that. Without, the engine computes, if there is one.
        """
        return self._forward(grey)[0]

    def embed(self, grey: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K) and, from the same pass, what enters the last linear layer, (N, D) float32
        without gradients; None for a network without such a layer."""
        with keep_features(self.network) as kept:
            logits, features = self._forward(grey)
        return logits, kept[-1] if kept else features

    def _forward(self, grey: Tensor) -> tuple[Tensor, Tensor | None]:
        self.passes.forwards += len(grey)
        batch = normalise(grey, self.contract)
        if self.engine is not None and not batch.requires_grad:
            outputs, features = self.engine(batch)
            return self._read(outputs.to(grey.device)), features
        with torch.autocast(grey.device.type, torch.bfloat16, enabled=self.bf16):
            return self._read(self.network(batch)), None

    def _read(self, outputs: Tensor) -> Tensor:
        """The findings' logits, whatever the network returns."""
        outputs = outputs.float()
        chosen = outputs[:, : len(self.findings)]
        if self.columns is not None:
            chosen = outputs[:, list(self.columns)]
        if self.outputs == "logits":
            return chosen
        logits: Tensor = torch.special.logit(chosen.double())
        return logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).float()

    def gradient(self, scalar: Tensor, grey: Tensor) -> Tensor:
        """The gradient of a scalar (a sum of logits) by the images it came from."""
        self.passes.backwards += len(grey)
        (gradient,) = torch.autograd.grad(scalar, grey, retain_graph=True)
        return gradient


def to_grey(images: NetworkInputs, device: torch.device) -> Tensor:
    """(N, size, size) in the stored dtype -> (N, 1, size, size) float32 in [0, 1]."""
    scaled = images.astype(np.float32) / full_scale(images.dtype)
    return torch.from_numpy(scaled)[:, None].to(device)


def normalise(grey: Tensor, contract: InputContract) -> Tensor:
    """grey (N, 1, H, W) in [0, 1] -> (N, C, H, W), minus mean, over std, channels last."""
    mean, std = (
        torch.tensor(v, device=grey.device).view(1, -1, 1, 1) for v in (contract.mean, contract.std)
    )
    batch = (grey.expand(-1, contract.channels, -1, -1) - mean) / std
    return batch.contiguous(memory_format=torch.channels_last)


def predict(
    victim: Victim,
    images: NetworkInputs,
    *,
    batch_size: int = 64,
    progress: Progress = silent,
    description: str = "Predicting",
) -> FloatArray:
    """Logits (N, K) float32 of images (N, size, size). Raises ModelError if one is not finite."""
    parts = []
    watched = progress(description, len(images))
    with torch.inference_mode(), frozen(victim.network), watched as advance:
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            parts.append(victim.logits(to_grey(chunk, victim.device)).cpu().numpy())
            advance(len(chunk))
    logits = np.concatenate(parts) if parts else np.zeros((0, len(victim.findings)), np.float32)
    if not np.isfinite(logits).all():
        raise ModelError(
            f"The network must return finite logits, got {int((~np.isfinite(logits)).sum())} that "
            "are not; its weights or its training are broken."
        )
    return logits


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without weight gradients; both are put back on any exit."""
    training = [(module, module.training) for module in network.modules()]
    required = [p.requires_grad for p in network.parameters()]
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in zip(network.parameters(), required, strict=True):
            parameter.requires_grad_(flag)


def default_device() -> torch.device:
    """Where victims live: the first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed, not emulated, on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "cpu":
        # oneDNN says that it supports bf16 on AVX-512 alone, where it is emulated and slow.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
