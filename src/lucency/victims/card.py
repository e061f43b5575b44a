"""A model on disk: safetensors weights and, beside them, the card that says how to use them.

model.toml
weights.safetensors
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lucency.config import load_toml
from lucency.data.preprocess import InputContract
from lucency.errors import ModelError
from lucency.records import Record
from lucency.victims.architectures import build, channels_last, require_size
from lucency.victims.victim import Victim, default_device, has_fast_bf16
from lucency.writing import write_text, write_via


class ModelSettings(Record):
    """`[model]` of a card. weights: a file beside the card. precision: "auto" takes bf16 where the
    device computes it, "fp32" never."""

    architecture: str
    weights: str = "weights.safetensors"
    findings: tuple[str, ...] = Field(min_length=1)
    outputs: Literal["logits"] = "logits"
    purpose: str = ""
    precision: Literal["auto", "fp32"] = "auto"


class ModelCard(Record):
    """`model.toml`."""

    model: ModelSettings
    input: InputContract


def save_victim(folder: Path, victim: Victim, architecture: str, purpose: str) -> None:
    """Write card and weights into `folder`, each atomically. Raises CannotWrite."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {k: v.detach().cpu().contiguous() for k, v in victim.network.state_dict().items()}
    write_via(folder / "weights.safetensors", lambda path: save_file(packed, path))
    model = ModelSettings(
        architecture=architecture,
        findings=victim.findings,
        purpose=purpose,
        precision="auto" if victim.bf16 else "fp32",
    )
    card = ModelCard(model=model, input=victim.contract)
    write_text(folder / "model.toml", _to_toml(card))


def load_victim(path: Path) -> Victim:
    """Load the model in the folder `path` (or the folder of a given `model.toml`).

    Raises ConfigError for a card that cannot be read, ModelError for weights that are absent, torn,
    not finite, or do not fit the architecture, naming the tensor (a name twice, too).
    """
    card_path = path if path.suffix == ".toml" else path / "model.toml"
    card = load_toml(card_path, ModelCard)
    if Path(card.model.weights).name != card.model.weights:
        raise ModelError(
            f"{card_path.name}: weights must be a file beside the card, got {card.model.weights!r}."
        )
    require_size(card.input.size)
    network = build(card.model.architecture, card.input.channels, len(card.model.findings), seed=0)
    weights = card_path.parent / card.model.weights
    _fill(network, _read_weights(weights), weights.name)
    device = default_device()
    return Victim(
        channels_last(network).to(device).eval(),
        card.input,
        card.model.findings,
        card.model.precision == "auto" and has_fast_bf16(device),
    )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ModelError(f"Weights were expected in {path.name} beside the card; it is absent.")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
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


def _fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> None:
    expected = network.state_dict()
    for key in sorted(expected.keys() ^ tensors.keys()):
        state = "missing" if key in expected else "not part of this architecture"
        raise ModelError(f"{name}: tensor {key!r} is {state}; check `architecture` in the card.")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise ModelError(
                f"{name}: tensor {key!r} must have shape {tuple(expected[key].shape)}, got "
                f"{tuple(tensor.shape)}; check `architecture`, `findings` and `channels`."
            )
        if tensor.dtype != expected[key].dtype:
            raise ModelError(
                f"{name}: tensor {key!r} must be {expected[key].dtype}, got {tensor.dtype}; "
                "convert the weights first."
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(
                f"{name}: all weights must be finite, but {key!r} holds NaN or infinity."
            )
    network.load_state_dict(tensors)


def _to_toml(card: ModelCard) -> str:
    parts = []
    for section, record in (("model", card.model), ("input", card.input)):
        lines = [f"{k} = {_toml_value(v)}" for k, v in record.model_dump(mode="json").items()]
        parts.append("\n".join([f"[{section}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _toml_value(value: Any) -> str:
    # JSON strings, numbers, booleans and lists of them are TOML as well, but for escapes in pairs
    # (so none) and a bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
