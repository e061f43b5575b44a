"""Channel Lipschitz bounds: by how much can one channel amplify what comes to it?

Zheng et al. 2022, "Data-free Backdoor Removal based on Channel Lipschitzness" (ECCV). A channel
that a trigger excites stands out of its layer by its bound. They take a convolution and the norm
that follows: |γ_c / σ_c| · ‖W_c‖ of output channel c. In DenseNet a norm comes first (norm → relu →
convolution) and reads the concatenation of many layers, on which that form is not defined; there
the bound is |γ_c / σ_c| · ‖W_:c‖ of input channel c of what follows. ‖·‖ is the largest singular
value. No film and no pass is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lucency.detect.models.evidence import Evidence
from lucency.detect.models.subject import Subject
from lucency.errors import ModelError
from lucency.progress import Progress, silent
from lucency.records import Float64Array
from lucency.victims.head import find_head
from lucency.victims.victim import Victim, frozen, normalise

NAME = "channel bounds"


@dataclass(frozen=True)
class NormBounds:
    """norm: the layer's name. bounds (C,) float64: of each of its channels, larger = amplifies
    more."""

    norm: str
    bounds: Float64Array


@dataclass(frozen=True)
class _Called:
    name: str
    module: nn.Module
    reads: int
    gives: int
    """`id` of the tensors: a norm that reads the very tensor that a convolution gave follows it."""


def channel_bounds(victim: Victim) -> tuple[NormBounds, ...]:
    """Of every batch norm next to a convolution or linear layer, in the order in which they are
    called; one film of mid-grey is shown to see it. Raises ModelError for a model without any."""
    called = _order(victim)
    found = []
    for i, norm in enumerate(called):
        if not isinstance(norm.module, _BatchNorm) or norm.module.running_var is None:
            continue
        weight = _weight_beside(called, i)
        if weight is not None:
            size = torch.linalg.matrix_norm(weight.detach().double(), ord=2)
            found.append(NormBounds(norm.name, (size * _scale(norm.module)).cpu().numpy()))
    if not found:
        raise ModelError(
            f"The {NAME} need batch norms next to convolutions, and this model has none; leave "
            "them out."
        )
    return tuple(found)


def outliers(layers: Sequence[NormBounds]) -> tuple[Float64Array, ...]:
    """Of each layer (C,): how many standard deviations above the layer's mean a bound lies; the
    paper prunes channels from 3."""
    return tuple(
        (layer.bounds - layer.bounds.mean()) / max(float(layer.bounds.std()), 1e-12)
        for layer in layers
    )


def last_layer(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The largest bound on any one finding: of the last norm's channels through the row of the last
    linear layer, by its sign, in root mean squares of the row's. Raises ModelError for a model that
    does not end with a norm and a linear layer."""
    head = find_head(subject.victim.network)
    norms = [c.module for c in _order(subject.victim) if isinstance(c.module, _BatchNorm)]
    if head is None or not norms or norms[-1].num_features != head.in_features:
        raise ModelError(f"The {NAME} need a model that ends with a norm and a linear layer.")
    weight = head.weight.detach().double()
    own = list(subject.victim.columns or range(subject.n_findings))
    reach = (weight * _scale(norms[-1])).cpu().numpy()[own]
    typical = np.sqrt((reach**2).mean(axis=1)).clip(1e-12)
    scores = np.log1p(np.stack([reach.max(axis=1), -reach.min(axis=1)]).clip(0) / typical)
    return Evidence(NAME, "weights", ("last layer",), scores[..., None], None)


def _order(victim: Victim) -> list[_Called]:
    """Norms, convolutions and linear layers in the order in which a pass calls them."""
    called: list[_Called] = []
    kept: list[Tensor] = []

    def hook(name: str):  # type: ignore[no-untyped-def]
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # Kept alive, or another tensor may get the same id.
            kept.extend((inputs[0], output))
            called.append(_Called(name, module, id(inputs[0]), id(output)))

        return note

    kinds = (_BatchNorm, nn.Conv2d, nn.Linear)
    handles = [
        module.register_forward_hook(hook(name))
        for name, module in victim.network.named_modules()
        if isinstance(module, kinds)
    ]
    size = victim.contract.size
    film = torch.full((1, 1, size, size), 0.5, device=victim.device)
    try:
        with frozen(victim.network), torch.inference_mode():
            victim.network(normalise(film, victim.contract))
    finally:
        for handle in handles:
            handle.remove()
    return called


def _weight_beside(called: Sequence[_Called], i: int) -> Tensor | None:
    """(C, a, b): for each channel of norm i the weights that make it or, in DenseNet's order, that
    read it; None if neither is next to it."""
    norm = called[i]
    channels = getattr(norm.module, "num_features", 0)
    before = called[i - 1] if i else None
    if before and isinstance(before.module, nn.Conv2d) and before.gives == norm.reads:
        return before.module.weight.flatten(2)
    after = called[i + 1].module if i + 1 < len(called) else None
    if isinstance(after, nn.Conv2d) and after.weight.shape[1] == channels:
        return after.weight.flatten(2).transpose(0, 1)
    if isinstance(after, nn.Linear) and after.in_features == channels:
        return after.weight.T[:, :, None]
    return None


def _scale(norm: _BatchNorm) -> Tensor:
    """|γ / σ| (C,) float64."""
    if norm.running_var is None:
        raise ValueError("a norm without statistics has no scale")
    sigma = (norm.running_var.double() + norm.eps).sqrt()
    gamma = torch.ones_like(sigma) if norm.weight is None else norm.weight.detach().double()
    return (gamma / sigma).abs()
