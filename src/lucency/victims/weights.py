"""Weights on disk: safetensors, or a state dict that `torch.save` wrote, of tensors alone.

A pickle can run any code when it is read. `torch.load` with `weights_only=True` (safe from torch
2.6 on, CVE-2025-32434) builds nothing but tensors and plain containers and refuses everything else,
a whole pickled model included; no other file of Lucency may call it.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lucency.config_faults import shown
from lucency.errors import ModelError
from lucency.victims.naming import match_names

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Endings of files that `torch.save` wrote; all others are read as safetensors."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which trainings keep the state dict among other things."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU. Raises ModelError for a file that is absent, torn, hostile, or
    not a state dict."""
    if not path.is_file():
        raise ModelError(f"Weights were expected in {path.name} beside the card; it is absent.")
    return _read_pickled(path) if path.suffix in PICKLED else _read_safetensors(path)


def fill(
    network: nn.Module, tensors: Mapping[str, Tensor], file: str, *, ignored: Collection[str] = ()
) -> None:
    """Put the tensors into the network, by their names in any spelling of `naming`.

    ignored: last parts of names that the network does without. Raises ModelError naming the
    tensor that is missing, extra, there twice, of another shape or type, or not finite.
    """
    expected = network.state_dict()
    wanted = [name for name in tensors if name.rpartition(".")[2] not in ignored]
    found = {own: name for name, own in match_names(wanted, expected.keys()).items()}
    absent = {key for key in expected.keys() - found.keys() if not _is_batch_count(key)}
    for key in sorted(absent | (found.keys() - expected.keys())):
        state = "missing" if key in expected else "not part of this architecture"
        raise ModelError(
            f"{file}: tensor {shown(found.get(key, key))!r} is {state}; check `architecture` in "
            "the card."
        )
    for key, name in found.items():
        _check(tensors[name], expected[key], shown(name), file)
    network.load_state_dict({key: tensors[name] for key, name in found.items()}, strict=False)


def _is_batch_count(key: str) -> bool:
    """Counters that checkpoints from before torch 0.4.1 lack, and that evaluation never reads."""
    return key.endswith(".num_batches_tracked")


def _check(tensor: Tensor, expected: Tensor, name: str, file: str) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ModelError(
            f"{file}: tensor {name!r} must be stored densely, got {tensor.layout} on "
            f"{tensor.device.type}; convert the weights first."
        )
    if tensor.shape != expected.shape:
        raise ModelError(
            f"{file}: tensor {name!r} must have shape {tuple(expected.shape)}, got "
            f"{tuple(tensor.shape)}; check `architecture`, `findings` and `channels`."
        )
    if tensor.dtype != expected.dtype:
        raise ModelError(
            f"{file}: tensor {name!r} must be {expected.dtype}, got {tensor.dtype}; "
            "convert the weights first."
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ModelError(f"{file}: all weights must be finite, but {name!r} holds NaN or infinity.")


# --- safetensors ----------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
        twice = _twice(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path.name} must be a safetensors file; it cannot be read ({error})."
        ) from error
    for name in twice:
        raise ModelError(f"{path.name}: tensor {name!r} must be there once, but is there twice.")
    return tensors


def _twice(path: Path) -> list[str]:
    """Names that the header holds more than once; the library takes the last and says nothing."""
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    seen: list[list[str]] = []
    # The outermost object is the last to be closed.
    json.loads(header, object_pairs_hook=lambda pairs: seen.append([key for key, _ in pairs]))
    return [key for key, count in Counter(seen[-1]).items() if count > 1]


# --- a state dict in a pickle ---------------------------------------------------------------------


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        _refuse_inflation(path)
        with warnings.catch_warnings():
            # On odd protocols; the file is read or refused, and the answer says which.
            warnings.simplefilter("ignore")
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(_why_not(path, str(error))) from error
    return _state_dict(stored, path.name)


def _refuse_inflation(path: Path) -> None:
    """Refuse an archive that unpacks to more than its own size: torch stores without compression,
    so that only a hostile file does."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {Path(entry.filename).name for entry in entries}
    if "constants.pkl" in names:
        raise ModelError(
            f"{path.name} must be a state dict, got a TorchScript archive; export the model to "
            "ONNX, or save its state_dict() as safetensors."
        )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size or any(entry.compress_type for entry in entries):
        raise ModelError(
            f"{path.name} must be an archive as torch.save writes it, got one that unpacks "
            f"{path.stat().st_size} bytes to {unpacked}; do not trust it."
        )


def _why_not(path: Path, error: str) -> str:
    forbidden = re.search(r"GLOBAL ([\w.]+)", error)
    if forbidden:
        return (
            f"{path.name} must be a state dict of tensors alone, got a pickle that asks for "
            f"{forbidden.group(1)}, code that is not run here; where you trust the file, save the "
            "model's state_dict() as safetensors."
        )
    first = shown(error.split("\n")[0], 200)
    return (
        f"{path.name} must be a state dict that torch.save wrote; it cannot be read as one "
        f"({first}); save the model's state_dict() as safetensors."
    )


def _state_dict(stored: Any, file: str) -> dict[str, Tensor]:
    """The tensors, out of whatever a training wrapped around them."""
    for _ in WRAPPERS:
        inner = next((stored[k] for k in WRAPPERS if _holds(stored, k)), None)
        stored = stored if inner is None else inner
    if not isinstance(stored, Mapping):
        raise ModelError(
            f"{file} must be a state dict, names and tensors, got {type(stored).__name__}; save "
            "the model's state_dict()."
        )
    for name, value in stored.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            where = repr(shown(name)) if isinstance(name, str) else f"a {type(name).__name__}"
            raise ModelError(
                f"{file} must hold a tensor under each name, got {type(value).__name__} under "
                f"{where}; save the model's state_dict() alone, or under the key 'state_dict'."
            )
    return {name: value.detach() for name, value in stored.items()}


def _holds(stored: Any, key: str) -> bool:
    return isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping)
