"""Forward passes by ONNX Runtime, on the processor, in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lucency.records import FloatArray
from lucency.victims.engine_graph import Graph, Library, Precision, Run, quiet, threads
from lucency.victims.extras import import_extra

NAME = "onnxruntime"
_INPUT = "batch"


def convert(network: nn.Module, batch: Tensor, precision: Precision) -> Graph:
    """The network as an ONNX model, for batches of the given shape."""
    needed_by = "The engine onnxruntime"
    runtime = import_extra(NAME, extra="onnx", needed_by=needed_by)
    import_extra("onnxscript", extra="onnx", needed_by=needed_by)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            network, (batch,), input_names=[_INPUT], dynamo=True, verbose=False
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return Graph(program.model_proto.SerializeToString(), b"", precision, runtime.__version__)


def compile_graph(graph: Graph) -> Run:
    """Open the model with this machine's processors."""
    runtime = import_extra(NAME, extra="onnx", needed_by="The engine onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads()
    # Threads that spin while torch computes slow both down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])

    def run(chunks: Sequence[FloatArray]) -> Sequence[tuple[FloatArray, ...]]:
        return [tuple(session.run(None, {_INPUT: chunk})) for chunk in chunks]

    return run


def name() -> str:
    """The installed version, and the precision that it computes in."""
    runtime = import_extra(NAME, extra="onnx", needed_by="The engine onnxruntime")
    return f"{NAME} {runtime.__version__}, float32"


LIBRARY = Library(NAME, computes_bf16=False, convert=convert, prepare=compile_graph)
