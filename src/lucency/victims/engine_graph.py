"""A network written down for another library: batches of one fixed size in, numbers out.

The size is fixed because libraries compute a known shape fastest, and because an image must get the
same logits in whatever company it comes: short batches are filled up with zeros, and the filling is
thrown away.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lucency.records import FloatArray
from lucency.victims.head import keep_features

Precision = Literal["bf16", "float32"]
Returns = Literal["features", "outputs and features", "outputs"]
Run = Callable[[Sequence[FloatArray]], Sequence[tuple[FloatArray, ...]]]
"""Chunks (BATCH, C, size, size) float32 -> what the graph returns for each, in the same order."""

# DenseNet-121 at 128 and 224 px, OpenVINO with one stream a processor: 2 to 16 at once are within a
# tenth of each other, 1 can be a third slower; of these, 4 fills up little and feeds many streams.
BATCH = 4


@dataclass(frozen=True)
class Graph:
    """What another process needs to compute the network: plain bytes, in the library's format.

    version: of the library that wrote it.
    """

    model: bytes
    weights: bytes
    precision: Precision
    version: str


@dataclass(frozen=True)
class Library:
    """Something that computes networks. prepare: may be called in another process."""

    name: str
    computes_bf16: bool
    convert: Callable[[nn.Module, Tensor, Precision], Graph]
    prepare: Callable[[Graph], Run]


@dataclass(frozen=True)
class Head:
    """The last linear layer, computed here, so that logits are not rounded to bf16.

    weight (K', D), bias (K',) or None: float64, in which the order of a sum, which depends on the
    size of a batch, cannot be seen in the float32 result.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, linear: nn.Linear) -> Head:
        bias = None if linear.bias is None else linear.bias.detach().double().cpu().clone()
        return cls(linear.weight.detach().double().cpu().clone(), bias)

    def __call__(self, features: Tensor) -> Tensor:
        """features (N, D) float32 -> outputs (N, K') float32."""
        return nn.functional.linear(features.double(), self.weight, self.bias).float()


class GraphEngine:
    """An `Engine` that holds its graph as bytes, and compiles it in the process that first needs
    it: it can be copied to another."""

    def __init__(self, library: Library, graph: Graph, head: Head | None) -> None:
        """head: computes the outputs, where the graph returns nothing but features."""
        self.library, self.graph, self.head = library, graph, head
        self._run: Run | None = None

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """batch (N, C, size, size) float32, any N -> outputs (N, K') float32, and what enters the
        last linear layer (N, D) float32, or None if that cannot be had."""
        if self._run is None:
            self._run = self.library.prepare(self.graph)
        parts = self._run(_chunks(batch))
        values = [
            torch.from_numpy(np.concatenate(part)[: len(batch)])
            for part in zip(*parts, strict=True)
        ]
        if self.head is not None:
            return self.head(values[0]), values[0]
        return values[0], values[1] if len(values) > 1 else None

    def __str__(self) -> str:
        return f"{self.library.name} {self.graph.version}, {self.graph.precision}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}


class Tapped(nn.Module):
    """A network that returns what enters its head, in place of its outputs or beside them."""

    def __init__(self, network: nn.Module, returns: Returns) -> None:
        super().__init__()
        self.network, self.returns = network, returns

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        with keep_features(self.network) as kept:
            outputs = self.network(batch)
        if self.returns == "features":
            return (kept[-1],)
        return (outputs, kept[-1]) if self.returns == "outputs and features" else (outputs,)


def threads() -> int:
    """As many as torch uses, and no more than the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return torch.get_num_threads()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block torch's tracers and exporters do not warn about their own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _chunks(batch: Tensor) -> list[FloatArray]:
    """Contiguous (BATCH, C, size, size) pieces, the last filled up with zeros; at least one."""
    images = batch.detach().float().cpu().contiguous().numpy()
    missing = max(BATCH, -(-len(images) // BATCH) * BATCH) - len(images)
    chunks = [images[i : i + BATCH] for i in range(0, len(images), BATCH)] or [images]
    chunks[-1] = np.pad(chunks[-1], ((0, missing), (0, 0), (0, 0), (0, 0)))
    return chunks
