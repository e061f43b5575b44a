"""The state of an unfinished training on disk: one safetensors file, never a pickle.

Tensors lie under `network/`, `best/` and `optimiser/`; everything else is JSON in the header, with
a digest of all of it, since safetensors has no checksum and a rotten bit would train on unseen.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lucency.errors import IntegrityError
from lucency.writing import write_via


@dataclass(frozen=True)
class Checkpoint:
    """training: a digest of what is trained, to tell one training from another. history: a record
    an epoch. network, best: weights now and at the best epoch. optimiser and
    schedule: their state dicts."""

    training: str
    history: list[dict[str, Any]]
    network: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write atomically. Raises CannotWrite."""
    tensors = {f"network/{k}": v for k, v in state.network.items()}
    tensors |= {f"best/{k}": v for k, v in state.best.items()}
    for index, slots in state.optimiser["state"].items():
        tensors |= {f"optimiser/{index}/{k}": v.detach().cpu() for k, v in slots.items()}
    header = {
        "training": state.training,
        "history": state.history,
        "groups": state.optimiser["param_groups"],
        "schedule": {k: v for k, v in state.schedule.items() if _is_plain(v)},
    }
    # Channels-last weights are strided; safetensors wants them packed.
    packed = {k: v.contiguous().clone() for k, v in tensors.items()}
    state_json = json.dumps(header)
    metadata = {"state": state_json, "sha256": _digest(state_json, packed)}
    write_via(path, lambda p: save_file(packed, p, metadata=metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote. Raises IntegrityError for a torn, rotten or foreign
    file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _digest(metadata["state"], tensors):
            raise ValueError("digest differs")
        header = json.loads(metadata["state"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key in _under(tensors, "optimiser/"):
            index, name = key.split("/")
            slots.setdefault(int(index), {})[name] = tensors[f"optimiser/{key}"]
        return Checkpoint(
            training=header["training"],
            history=header["history"],
            network=_under(tensors, "network/"),
            best=_under(tensors, "best/"),
            optimiser={"state": slots, "param_groups": header["groups"]},
            schedule=header["schedule"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"A checkpoint of a training was expected in {path.name}, but it cannot be read "
            f"({type(error).__name__}: {error}); delete it to train from the start."
        ) from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256(state.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        total.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, list, type(None))) and not isinstance(
        value, torch.Tensor
    )
