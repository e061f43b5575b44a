"""An ONNX model answers as its network does; one that reaches outside its file is refused."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.errors import MissingExtra, ModelError
from lucency.victims.card import load_victim, save_victim
from lucency.victims.onnx_file import require_self_contained
from lucency.victims.onnx_model import OnnxNetwork
from lucency.victims.victim import Victim, predict, to_grey

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CONTRACT = InputContract(size=32)
FLOAT = TensorProto.FLOAT


class Net(nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def as_onnx(network, shape=("N", 1, 32, 32), *, kind=FLOAT, nodes=None, outputs=("y",)):
    """The network, written down by hand."""
    state = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    nodes = nodes or [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    shapes = {"y": ("M", 3), "f": ("M", 4), "r": None}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(o, kind, shapes[o]) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in state.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def write(folder, model, *, findings=("A", "B", "C"), size=32, channels=1):
    folder.mkdir(exist_ok=True)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.toml").write_text(
        f'[model]\narchitecture = "onnx"\nweights = "model.onnx"\n'
        f"findings = {json.dumps(list(findings))}\n"
        f"[input]\nsize = {size}\nchannels = {channels}\n"
    )
    return folder


@pytest.mark.parametrize("batch", ["N", 1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_it_answers_as_the_network_whatever_the_batch(tmp_path, films, batch, batch_size):
    victim = load_victim(write(tmp_path, as_onnx(Net(), (batch, 1, 32, 32))))
    expected = predict(Victim(Net().eval(), CONTRACT, ("A", "B", "C")), films)
    found = predict(victim, films, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 0
    assert predict(victim, films[:0]).shape == (0, 3)


def test_the_victim_says_what_it_cannot_do(tmp_path, films):
    victim = load_victim(write(tmp_path, as_onnx(Net()), findings=("", "B", "C")))
    assert not victim.differentiable
    assert not victim.bf16
    assert list(victim.network.parameters()) == []
    assert (victim.findings, victim.columns) == (("B", "C"), (1, 2))
    grey = to_grey(films, victim.device)
    logits, features = victim.embed(grey)
    assert (logits.shape, features) == ((7, 2), None)
    with pytest.raises(ModelError, match=r"model\.onnx is an ONNX model, which has no gradients"):
        victim.logits(grey.requires_grad_(True))
    with pytest.raises(ModelError, match="cannot be saved as safetensors"):
        save_victim(tmp_path / "again", victim, "onnx", "")


def test_three_channels(tmp_path, films):
    victim = load_victim(write(tmp_path, as_onnx(Net(3), ("N", 3, "H", "W")), channels=3))
    contract = InputContract(size=32, channels=3)
    expected = predict(Victim(Net(3).eval(), contract, ("A", "B", "C")), films)
    np.testing.assert_allclose(predict(victim, films), expected, rtol=1e-4, atol=1e-5)


def test_further_outputs_are_not_read(tmp_path, films):
    victim = load_victim(write(tmp_path, as_onnx(Net(), outputs=("r", "f", "y"))))
    expected = predict(load_victim(write(tmp_path / "one", as_onnx(Net()))), films)
    np.testing.assert_array_equal(predict(victim, films), expected)


MINE = [helper.make_node("Steal", ["x"], ["y"], domain="mine")]
FLAT = [helper.make_node("Flatten", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("model", "card", "said"),
    [
        (as_onnx(Net(3), ("N", 3, 32, 32)), {}, r"\(N, 1, 32, 32\), but 'x' has \(any, 3, 32, 32"),
        (
            as_onnx(Net()),
            {"size": 48},
            r"\(N, 1, 48, 48\), but 'x' has \(any, 1, 32, 32\); correct",
        ),
        (as_onnx(Net(), ("N", 32, 32, 1)), {}, "channels must come before height and width"),
        (as_onnx(Net(), ("N", 1, 3), nodes=FLAT), {}, r"'x' has \(any, 1, 3\)"),
        (
            as_onnx(Net(), ("N", 1, 1, 3), kind=TensorProto.DOUBLE, nodes=FLAT),
            {},
            r"'x' is tensor\(double\)",
        ),
        (as_onnx(Net()), {"findings": ["A", "B"]}, r"float output of shape \(N, 2\).*got y tensor"),
        (as_onnx(Net(), outputs=("r",)), {}, r"float output of shape \(N, 3\)"),
        (as_onnx(Net(), nodes=MINE), {}, "that ONNX Runtime computes by itself, but it gives"),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused(tmp_path, model, card, said):
    with pytest.raises(ModelError, match=rf"^model\.onnx must .*{said}"):
        load_victim(write(tmp_path, model, **card))


def test_two_inputs_are_refused(tmp_path):
    model = as_onnx(Net())
    model.graph.input.append(helper.make_tensor_value_info("age", FLOAT, ("N", 1)))
    with pytest.raises(ModelError, match=r"got 2 inputs \(x, age\)"):
        load_victim(write(tmp_path, model))


def test_an_absent_model_and_an_absent_runtime_are_named(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"absent\.onnx beside the card; it is absent"):
        OnnxNetwork(tmp_path / "absent.onnx", CONTRACT, 3)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(MissingExtra, match=r"model\.onnx needs .* 'lucency\[onnx\]'"):
        load_victim(write(tmp_path, as_onnx(Net())))


# --- what lies outside the file -------------------------------------------------------------------


def external(location="secret", name="hidden"):
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initialiser(model):
    model.graph.initializer.append(external())


def in_sparse_initialiser(model):
    model.graph.sparse_initializer.add(dims=[9]).values.CopyFrom(external())


def in_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=external()))


def in_list_of_tensors(model):
    node = model.graph.node.add(op_type="Odd")
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(external())


def in_branch_of_a_branch(model):
    inner = helper.make_graph([], "inner", [], [], [external()])
    outer = helper.make_graph(
        [helper.make_node("If", ["b"], ["z"], then_branch=inner)], "o", [], []
    )
    model.graph.node.append(helper.make_node("If", ["a"], ["z"], else_branch=outer))


def in_function(model):
    function = model.functions.add(name="f", domain="mine")
    function.node.append(helper.make_node("Constant", [], ["k"], value=external()))


def in_training(model):
    model.training_info.add().initialization.initializer.append(external())


def without_location_flag(model):
    in_initialiser(model)
    model.graph.initializer[-1].ClearField("data_location")


def without_location(model):
    in_initialiser(model)
    model.graph.initializer[-1].ClearField("external_data")


@pytest.mark.parametrize(
    "hide",
    [
        in_initialiser, in_sparse_initialiser, in_constant, in_list_of_tensors,
        in_branch_of_a_branch, in_function, in_training, without_location_flag, without_location,
    ],
)  # fmt: skip
def test_a_tensor_in_another_file_is_found_wherever_it_hides(tmp_path, hide):
    model = as_onnx(Net())
    require_self_contained(model.SerializeToString(), "m")
    hide(model)
    with pytest.raises(ModelError, match=r"model\.onnx: tensor 'hidden' lies in another file"):
        load_victim(write(tmp_path, model))


@pytest.mark.parametrize("location", ["model.data", "../secret.bin", "/etc/passwd"])
def test_external_data_is_refused_even_where_it_exists(tmp_path, location):
    model, folder = as_onnx(Net()), tmp_path / "model"
    (weight,) = [t for t in model.graph.initializer if t.name == "head.bias"]
    values = weight.raw_data
    weight.CopyFrom(external(location, "head.bias"))
    del weight.dims[:]
    weight.dims.append(3)
    write(folder, model)
    for path in (folder / "model.data", tmp_path / "secret.bin"):
        path.write_bytes(values)
    with pytest.raises(ModelError, match=r"'head\.bias' lies in another file"):
        load_victim(folder)


def test_saving_with_external_data_is_what_is_refused(tmp_path):
    write(tmp_path, as_onnx(Net()))
    onnx.save(as_onnx(Net()), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelError, match="lies in another file, which is not read"):
        load_victim(tmp_path)


# --- files that are none --------------------------------------------------------------------------


def nested(levels):
    """A graph in an attribute of a node in a graph …, deeper than Python's stack."""
    graph = b""
    for _ in range(levels):
        for field in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            graph = bytes([field << 3 | 2]) + varint(len(graph)) + graph
    return b"\x3a" + varint(len(graph)) + graph


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


HOSTILE = {
    "empty": b"",
    "text": b"not a model at all",
    "a pickle": b"\x80\x02}q\x00.",
    "a zip": b"PK\x03\x04" + bytes(40),
    "an endless number": b"\x3a" + b"\xff" * 20,
    "a length past the end": b"\x3a\xff\xff\xff\xff\x0f",
    "a length of 2^63": b"\x3a" + varint(2**63 - 1),
    "a group": b"\x3b\x3c",
    "an empty graph": b"\x3a\x00",
    "no graph": b"\x08\x08",
    "ONNX Runtime's own format": b"\x18\x00\x00\x00ORTM" + bytes(64),
    "deep": nested(3000),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, content):
    with pytest.raises(ModelError, match=r"^model\.onnx must "):
        load_victim(write(tmp_path, content))


def test_every_truncation_is_refused(tmp_path):
    data = as_onnx(Net()).SerializeToString()
    for n in range(0, len(data) - 1, 7):
        with pytest.raises(ModelError):
            load_victim(write(tmp_path, data[:n]))


def test_the_look_inside_never_crashes():
    whole = as_onnx(Net()).SerializeToString()
    generator, refused = np.random.default_rng(0), 0
    for k in range(1000):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 1 + k % 5):
            data[place] = generator.integers(256)
        try:
            require_self_contained(bytes(data), "m")
        except ModelError:
            refused += 1
    assert 100 < refused < 1000
