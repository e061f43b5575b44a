"""A model on disk: a card that says how to use it and, beside the card, its weights.

model.toml
weights.safetensors

Lucency writes its own models so, and reads other people's: `loading` knows what kinds.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from safetensors.torch import save_file

from lucency.config import load_toml
from lucency.config_faults import shown
from lucency.data.preprocess import InputContract
from lucency.errors import ModelError
from lucency.records import Record
from lucency.victims.architectures import channels_last
from lucency.victims.head import find_head
from lucency.victims.loading import ONNX, load_network, may_bring_weights
from lucency.victims.victim import Outputs, Victim, default_device, has_fast_bf16
from lucency.writing import write_text, write_via


class ModelSettings(Record):
    """`[model]` of a card. weights: a file beside the card; "" where a factory brings its own.
    findings: a name for each output, in order; "" for one without meaning, which is skipped.
    precision: "auto" takes bf16 where the device computes it and the network is Lucency's own,
    "fp32" never."""

    architecture: str
    weights: str = "weights.safetensors"
    findings: tuple[str, ...] = Field(min_length=1)
    outputs: Outputs = "logits"
    purpose: str = ""
    precision: Literal["auto", "fp32"] = "auto"


class ModelCard(Record):
    """`model.toml`."""

    model: ModelSettings
    input: InputContract


def save_victim(folder: Path, victim: Victim, architecture: str, purpose: str) -> None:
    """Write card and weights into `folder`, each atomically. Raises CannotWrite, and ModelError for
    an ONNX model, whose weights are not in its network."""
    if architecture == ONNX:
        raise ModelError("An ONNX model cannot be saved as safetensors; copy its file and card.")
    folder.mkdir(parents=True, exist_ok=True)
    packed = {k: v.detach().cpu().contiguous() for k, v in victim.network.state_dict().items()}
    write_via(folder / "weights.safetensors", lambda path: save_file(packed, path))
    model = ModelSettings(
        architecture=architecture,
        findings=_all_columns(victim),
        outputs=victim.outputs,
        purpose=purpose,
        precision="auto" if victim.bf16 else "fp32",
    )
    card = ModelCard(model=model, input=victim.contract)
    write_text(folder / "model.toml", _to_toml(card))


def _all_columns(victim: Victim) -> tuple[str, ...]:
    """A name for each of the network's outputs, "" for those that the victim skips."""
    if victim.columns is None:
        return victim.findings
    head = find_head(victim.network)
    n_outputs = max(victim.columns) + 1 if head is None else head.out_features
    names = [""] * n_outputs
    for column, finding in zip(victim.columns, victim.findings, strict=True):
        names[column] = finding
    return tuple(names)


def load_victim(path: Path, *, run_code: bool = False) -> Victim:
    """Load the model in the folder `path` (or the folder of a given `model.toml`).

    run_code: whether a card may name a factory, code that is then called.

    Raises ConfigError for a card that cannot be read, ModelError for weights that are absent, torn,
    hostile, not finite, or do not fit the architecture, naming the tensor (a name twice, too), and
    for a network that cannot be built or does not return an output a finding; MissingExtra where
    an optional package is needed. `contract_check.check_victim` then tries it on films.
    """
    card_path, card = _card_path(path), read_card(path)
    columns = _columns(card.model.findings)
    loaded = load_network(
        card.model.architecture,
        _weights_path(card, card_path),
        card.input,
        card.model.findings,
        run_code=run_code,
    )
    device = default_device()
    return Victim(
        channels_last(loaded.network).to(device).eval(),
        card.input,
        tuple(card.model.findings[column] for column in columns),
        bf16=loaded.has_exact_head and card.model.precision == "auto" and has_fast_bf16(device),
        outputs=card.model.outputs,
        columns=None if len(columns) == len(card.model.findings) else columns,
        differentiable=loaded.differentiable,
    )


def read_card(path: Path) -> ModelCard:
    """The card alone. Raises ConfigError if it cannot be read."""
    return load_toml(_card_path(path), ModelCard)


def _card_path(path: Path) -> Path:
    return path if path.suffix == ".toml" else path / "model.toml"


def _columns(findings: tuple[str, ...]) -> tuple[int, ...]:
    """The outputs that have a name."""
    columns = tuple(index for index, name in enumerate(findings) if name)
    if not columns:
        raise ModelError('findings must name at least one output, got only blank names ("").')
    for name, count in Counter(findings[c] for c in columns).items():
        if count > 1:
            raise ModelError(
                f"findings must name each output once, got {shown(name)!r} {count} times; give an "
                'output to be skipped the name "".'
            )
    return columns


def _weights_path(card: ModelCard, card_path: Path) -> Path | None:
    """The file beside the card; None for a factory that brings its own weights."""
    name = card.model.weights
    if not name and may_bring_weights(card.model.architecture):
        return None
    if not name or Path(name).name != name:
        raise ModelError(
            f"{card_path.name}: weights must be a file beside the card, got {shown(name)!r}."
        )
    return card_path.parent / name


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
