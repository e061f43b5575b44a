"""A model in an ONNX file, computed by ONNX Runtime on the CPU: forward passes, no gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lucency.config_faults import shown
from lucency.data.preprocess import InputContract
from lucency.errors import ModelError
from lucency.records import FloatArray
from lucency.victims.extras import import_extra
from lucency.victims.onnx_file import require_self_contained


class OnnxNetwork(nn.Module):
    """A network without parameters: (N, C, size, size) float32 -> outputs (N, K') float32.

    path: the file, which holds all its weights. batch: how many images the model takes at once;
    None = any number. Only ONNX Runtime's own operators are known: no custom library is loaded.
    """

    def __init__(self, path: Path, contract: InputContract, n_outputs: int) -> None:
        """Raises ModelError for a file that is absent, torn, not self-contained, or whose input or
        outputs are not those of the card; MissingExtra without onnxruntime."""
        super().__init__()
        if not path.is_file():
            raise ModelError(f"A model was expected in {path.name} beside the card; it is absent.")
        self.path = path
        self.session = _open(path.read_bytes(), path.name)
        self.input, self.batch = _input(self.session, contract, path.name)
        self.output = _output(self.session, n_outputs, path.name)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise ModelError(
                f"{self.path.name} is an ONNX model, which has no gradients; choose a method that "
                "needs forward passes alone."
            )
        batch: FloatArray = np.ascontiguousarray(x.detach().cpu().float().numpy())
        step = self.batch or max(1, len(batch))
        parts = [self._run(batch[i : i + step]) for i in range(0, max(1, len(batch)), step)]
        return torch.from_numpy(np.concatenate(parts)).to(x.device)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the file's bytes with its own number of threads."""
        return {**self.__dict__, "session": self.path.read_bytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.session = _open(state["session"], self.path.name)

    def _run(self, images: FloatArray) -> FloatArray:
        n = len(images)
        if self.batch is not None and n < self.batch:
            images = np.pad(images, ((0, self.batch - n), (0, 0), (0, 0), (0, 0)))
        try:
            (outputs,) = self.session.run([self.output], {self.input: images})
        except Exception as error:
            raise ModelError(
                f"{self.path.name} must compute an input of shape {images.shape}, but ONNX Runtime "
                f"gives: {_cause(error)}."
            ) from error
        return np.asarray(outputs[:n], np.float32)


def _cause(error: Exception) -> str:
    return shown(str(error).strip().rstrip("."), 300)


def _open(data: bytes, file: str) -> Any:
    runtime = import_extra("onnxruntime", extra="onnx", needed_by=f"The ONNX model {file}")
    require_self_contained(data, file)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while torch computes slow both down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{file} must be a model that ONNX Runtime computes by itself, but it gives: "
            f"{_cause(error)}."
        ) from error


def _input(session: Any, contract: InputContract, file: str) -> tuple[str, int | None]:
    """The name of the input, and the number of images that it takes (None = any)."""
    inputs = session.get_inputs()
    channels, size = contract.channels, contract.size
    wanted = f"one float input of shape (N, {channels}, {size}, {size})"
    if len(inputs) != 1:
        names = ", ".join(shown(i.name, 50) for i in inputs[:5])
        raise ModelError(f"{file} must have {wanted}, got {len(inputs)} inputs ({names}).")
    (only,) = inputs
    shape = tuple(d if isinstance(d, int) else None for d in only.shape)
    name = shown(only.name, 50)
    if only.type != "tensor(float)":
        raise ModelError(f"{file} must have {wanted}, but {name!r} is {only.type}.")
    fits = len(shape) == 4 and all(
        have in (None, want) for have, want in zip(shape[1:], (channels, size, size), strict=True)
    )
    if not fits or shape[0] == 0:
        said = ", ".join("any" if d is None else str(d) for d in shape)
        hint = "correct [input] channels and size"
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            hint = "channels must come before height and width, so export it again"
        raise ModelError(f"{file} must have {wanted}, but {name!r} has ({said}); {hint}.")
    return only.name, shape[0]


def _output(session: Any, n_outputs: int, file: str) -> str:
    """The name of the first output (N, n_outputs); others are not read."""
    seen = []
    for output in session.get_outputs():
        shape = [d if isinstance(d, int) else None for d in output.shape]
        if output.type == "tensor(float)" and len(shape) == 2 and shape[1] in (None, n_outputs):
            return str(output.name)
        seen.append(f"{shown(output.name, 50)} {output.type} {output.shape}")
    raise ModelError(
        f"{file} must have a float output of shape (N, {n_outputs}), one column a finding of the "
        f"card, got {'; '.join(seen)[:300]}."
    )
