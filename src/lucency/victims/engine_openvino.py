"""Forward passes by OpenVINO, on the processor."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lucency.records import FloatArray
from lucency.victims.engine_graph import Graph, Library, Precision, Run, quiet, threads
from lucency.victims.extras import import_extra

NAME = "openvino"
_TELEMETRY = "openvino_telemetry"


def convert(network: nn.Module, batch: Tensor, precision: Precision) -> Graph:
    """The network as OpenVINO's intermediate representation, for batches of the given shape."""
    openvino = import_openvino()
    # `openvino.convert_model` does the same, and reports each conversion to its maker's server.
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    trace = import_openvino("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder
    with torch.no_grad(), quiet():
        # Has a name because the front end does not keep it alive, nor the weights in it.
        traced = trace(network, example_input=(batch,))
        model = frontend.convert(frontend.load(traced))
    model.reshape({0: list(batch.shape)})
    # The library writes to paths alone.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return Graph(
            path.read_bytes(),
            path.with_suffix(".bin").read_bytes(),
            precision,
            openvino.__version__.partition("-")[0],
        )


def compile_graph(graph: Graph) -> Run:
    """Compile for this machine's processors."""
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(graph.model, graph.weights)
    compiled = core.compile_model(model, "CPU", _settings(graph.precision))
    # A stream computes one chunk on its own processor: none waits for another.
    streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    queue = openvino.AsyncInferQueue(compiled, streams)
    n_outputs = len(compiled.outputs)
    lock = threading.Lock()

    def run(chunks: Sequence[FloatArray]) -> Sequence[tuple[FloatArray, ...]]:
        found: dict[int, tuple[FloatArray, ...]] = {}

        def keep(request: Any, index: int) -> None:
            # A request's memory belongs to the next chunk as soon as this returns.
            outputs = (request.get_output_tensor(i).data.copy() for i in range(n_outputs))
            found[index] = tuple(outputs)

        with lock:
            queue.set_callback(keep)
            try:
                for index, chunk in enumerate(chunks):
                    queue.start_async([chunk], userdata=index, share_inputs=True)
            finally:
                queue.wait_all()
        return [found[index] for index in range(len(chunks))]

    return run


def import_openvino(module: str = NAME) -> Any:
    """The package, or a module of it. Its import alone reports to its maker's server, from a fork
    of this process; a tool for patients' films does not."""
    with _without_telemetry():
        return import_extra(module, extra=NAME, needed_by="The engine openvino")


LIBRARY = Library(NAME, computes_bf16=True, convert=convert, prepare=compile_graph)


def _settings(precision: Precision) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads(),
        # Several workers of one thread each would all be bound to the first processor.
        "ENABLE_CPU_PINNING": False,
    }


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Inside the block the package for telemetry cannot be imported: OpenVINO then does without,
    and stays so. Where somebody has imported it before, that is left as it is."""
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            sys.modules.pop(_TELEMETRY, None)
