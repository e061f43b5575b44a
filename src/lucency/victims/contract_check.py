"""The hard check of an input contract: a model is run on reference films before it is trusted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lucency.config_faults import shown
from lucency.data.preprocess import InputContract
from lucency.errors import LucencyError, ModelError
from lucency.records import BoolArray, FloatArray, NetworkInputs
from lucency.victims import contract_faults as faults
from lucency.victims.first_norm import first_norm_fault, look_at_first_norm
from lucency.victims.victim import Victim, normalise, to_grey

LOOKED_AT = 64
"""Films, evenly over those given."""
BATCH = 16


def check_victim(victim: Victim, images: NetworkInputs) -> tuple[str, ...]:
    """Run a model on reference films and say what looks wrong: a sentence each, with its numbers.

    images: (N, size, size) uint8 or uint16, N ≥ 1, clean films at the network's input; at most 64
    of them are looked at (and counted in `victim.passes`). A sound model gives ().

    Raises ModelError for what cannot work: no film or films of another size; an input that the
    network cannot compute (channels); a wrong number of outputs; outputs that are not finite, do
    not depend on the film at all, or are called probabilities and leave [0, 1].
    """
    chosen = _some(images, victim.contract)
    outputs = _outputs(victim, chosen)
    _require_columns(outputs, victim)
    named = outputs[:, list(victim.columns or range(len(victim.findings)))]
    _require_finite(named, victim.findings)
    if victim.outputs == "probabilities":
        _require_none(faults.outside_probabilities_fault(named))
    logits = _as_logits(named, victim)
    grey = to_grey(chosen, torch.device("cpu"))[:, 0].numpy()
    different = len(np.unique(chosen.reshape(len(chosen), -1), axis=0))
    if different > 1:
        _require_moving(logits, named, victim.contract)
    remembered = look_at_first_norm(victim, chosen)
    found = [
        faults.scaling_fault(victim.contract),
        faults.dark_films_fault(grey, chosen),
        faults.flat_films_fault(grey),
        faults.saturated_films_fault(grey),
        faults.saturated_outputs_fault(logits),
        None if remembered is None else first_norm_fault(remembered),
        *_reading_faults(outputs, named, victim),
    ]
    if different > 1:
        found += [
            faults.constant_finding_fault(logits, victim.findings),
            faults.small_spread_fault(logits),
        ]
    else:
        found.append(
            f"The {len(chosen)} reference film(s) looked at are all the same, so that it cannot "
            "be told whether the model's outputs depend on the film."
        )
    return tuple(sentence for sentence in found if sentence is not None)


def require_outputs(network: nn.Module, contract: InputContract, n_outputs: int) -> None:
    """Run the network once, on black. Raises ModelError unless it returns (1, n_outputs) floats."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    black = torch.zeros(1, 1, contract.size, contract.size, device=device)
    outputs = _compute(network, network, normalise(black, contract))
    if outputs.shape[1] != n_outputs:
        raise ModelError(
            f"The network must return an output for each of the {n_outputs} findings of the card "
            f'(blank ones "" included), got {outputs.shape[1]}.'
        )


def _some(images: NetworkInputs, contract: InputContract) -> NetworkInputs:
    wanted = (contract.size, contract.size)
    if images.ndim != 3 or images.shape[1:] != wanted or len(images) == 0:
        raise ModelError(
            f"Reference films must have shape (N, {contract.size}, {contract.size}), N at least "
            f"1, got {images.shape}; they go through [input] first."
        )
    n = min(LOOKED_AT, len(images))
    return images[np.arange(n) * len(images) // n]


def _outputs(victim: Victim, images: NetworkInputs) -> FloatArray:
    """All outputs (N, K') float32 as the network or its engine returns them."""

    def forward(batch: Tensor) -> Tensor:
        if victim.engine is not None:
            return victim.engine(batch)[0]
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=victim.bf16):
            result: Tensor = victim.network(batch)
        return result

    parts = []
    for start in range(0, len(images), BATCH):
        grey = to_grey(images[start : start + BATCH], victim.device)
        victim.passes.forwards += len(grey)
        outputs = _compute(forward, victim.network, normalise(grey, victim.contract))
        parts.append(outputs.float().cpu().numpy())
    return np.concatenate(parts)


def _compute(
    forward: Callable[[Tensor], Tensor] | nn.Module, network: nn.Module, batch: Tensor
) -> Tensor:
    try:
        with torch.inference_mode():
            outputs = forward(batch)
    except LucencyError:
        raise
    except Exception as error:
        raise ModelError(_why_not(network, batch, error)) from error
    is_table = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(batch)
    if not is_table or not outputs.is_floating_point():
        got = type(outputs).__name__
        if isinstance(outputs, Tensor):
            got = f"{outputs.dtype} of shape {tuple(outputs.shape)}"
        raise ModelError(
            f"The network must return one float tensor (N, findings) for N = {len(batch)} films, "
            f"got {got}; wrap it so that it does."
        )
    return outputs


def _why_not(network: nn.Module, batch: Tensor, error: Exception) -> str:
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    channels = batch.shape[1]
    if first is not None and first.in_channels != channels:
        return (
            f"The network's first convolution takes {first.in_channels} channel(s), but [input] "
            f"channels = {channels}; correct the card."
        )
    return (
        f"The network must compute an input of shape {tuple(batch.shape)}, but gives "
        f"{type(error).__name__}: {shown(str(error), 200)}; check [input] size and channels."
    )


def _require_columns(outputs: FloatArray, victim: Victim) -> None:
    n = outputs.shape[1]
    if victim.columns is None and n != len(victim.findings):
        raise ModelError(
            f"The network must return an output for each of the {len(victim.findings)} findings, "
            f'got {n}; name all outputs in order, with "" for those to skip.'
        )
    if victim.columns is not None and n <= max(victim.columns):
        raise ModelError(
            f"The network must return at least {max(victim.columns) + 1} outputs, since "
            f"{victim.findings[int(np.argmax(victim.columns))]} is number "
            f"{max(victim.columns) + 1}, got {n}; check findings in the card."
        )


def _require_finite(named: FloatArray, findings: tuple[str, ...]) -> None:
    broken: BoolArray = ~np.isfinite(named)
    if broken.any():
        some = ", ".join(f for k, f in enumerate(findings) if broken[:, k].any())
        raise ModelError(
            f"The network must return finite outputs, got {int(broken.sum())} of {broken.size} "
            f"that are not ({shown(some, 200)}); check the weights and [input] std."
        )


def _require_moving(logits: FloatArray, named: FloatArray, contract: InputContract) -> None:
    if not faults.is_constant(logits).all():
        return
    black, white = faults.contract_range(contract)
    raise ModelError(
        f"The network must answer differently to different films, but returned the same on all "
        f"{len(logits)} reference films (first output {named[0, 0]:.4g}); the probable cause is "
        f"[input] mean and std, which put films into [{black:.4g}, {white:.4g}]: is that the "
        "range the network was trained on?"
    )


def _reading_faults(outputs: FloatArray, named: FloatArray, victim: Victim) -> list[str | None]:
    if victim.outputs == "logits":
        return [faults.undeclared_probabilities_fault(named)]
    return [faults.double_sigmoid_fault(named), faults.softmax_fault(outputs)]


def _as_logits(named: FloatArray, victim: Victim) -> FloatArray:
    if victim.outputs == "logits":
        return named
    unclamped: Tensor = torch.special.logit(torch.from_numpy(named).double(), eps=1e-7)
    logits: FloatArray = unclamped.float().numpy()
    return logits


def _require_none(sentence: str | None) -> None:
    if sentence is not None:
        raise ModelError(sentence)
