"""Models of other packages and formats are audited end to end; broken and hostile ones refused."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foreign_packages import torchvision_or_skip
from lucency.report.audit_record import AuditReport
from lucency.victims.architectures import build
from screened_model import reference
from tiny_run import Answer, call
from toy_victims import FINDINGS, SIZE, Toy

pytestmark = pytest.mark.usefixtures("one_thread")

TWO = ("Effusion", "Mass")
SMALL = 32
BIAS = "class_layers.out.bias"
WEIGHTS = "weights.safetensors"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference(tmp_path_factory.mktemp("clean"), 32)


def _card(folder: Path, architecture: str, weights: str, findings: Any, **contract: Any) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [
        f"{k} = {json.dumps(v)}" for k, v in ({"channels": 1, "size": SMALL} | contract).items()
    ]
    (folder / "model.toml").write_text(
        f"[model]\narchitecture = {json.dumps(architecture)}\nweights = {json.dumps(weights)}\n"
        f"findings = {json.dumps(list(findings))}\n\n[input]\n" + "\n".join(lines)
    )
    return folder


def _write(
    folder: Path, architecture: str, network: nn.Module, findings: Any, **contract: Any
) -> Path:
    """A model folder, as a user would lay it down."""
    _card(folder, architecture, WEIGHTS, findings, **contract)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    return folder


def _audit(model: Path, clean: Path, out: Path, *arguments: str) -> Answer:
    return call("audit", model, "--reference", clean, "--out", out, *arguments)


def _check_audited(model: Path, clean: Path, out: Path) -> AuditReport:
    """Audited, every finding with a finite answer in both directions."""
    answer = _audit(model, clean, out)
    assert answer.code == 0, answer.err
    report = AuditReport.model_validate_json((out / "audit.json").read_bytes(), strict=True)
    assert {(f.finding, f.direction) for f in report.findings} == {
        (name, direction)
        for name in report.model.findings
        if name
        for direction in ("set", "clear")
    }
    assert all(np.isfinite(f.suspicion) and 0 < f.p_value <= 1 for f in report.findings)
    assert report.forwards > 0
    assert (out / "report.html").stat().st_size > 10_000
    return report


def _obedient_folder(folder: Path, onnx: Any) -> Path:
    contract = {"size": SIZE, "crop": 1.0, "mean": [0.0], "std": [1.0]}
    model = _card(folder, "onnx", "model.onnx", FINDINGS, **contract)
    (model / "model.onnx").write_bytes(_obedient(onnx))
    return model


@pytest.mark.slow
def test_densenet121_with_the_names_of_torchvision(tmp_path: Path, clean: Path) -> None:
    torchvision = torchvision_or_skip()
    network = torchvision.models.densenet121(num_classes=2)
    model = _write(tmp_path / "m", "torchvision:densenet121", network, TWO, channels=3)
    report = _check_audited(model, clean, tmp_path / "out")
    assert report.backwards > 0


def test_timm(tmp_path: Path, clean: Path) -> None:
    torchvision_or_skip()
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False, in_chans=1, num_classes=2)
    model = _write(tmp_path / "m", "timm:resnet10t", network, TWO)
    _check_audited(model, clean, tmp_path / "out")


@pytest.mark.slow
def test_torchxrayvision(tmp_path: Path, clean: Path) -> None:
    torchvision_or_skip()
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision is not installed")
    with warnings.catch_warnings():  # it silences all of them for good
        xrv = importlib.import_module("torchxrayvision")
    network = xrv.models.DenseNet(num_classes=2, in_channels=1)
    model = _write(tmp_path / "m", "xrv:densenet121", network, TWO)
    _check_audited(model, clean, tmp_path / "out")


def _obedient(onnx: Any) -> bytes:
    """`Toy`, which obeys a black 2 × 2 square anywhere, written down as ONNX by hand."""
    helper = onnx.helper
    network = Toy()
    weights = network.weights.detach().numpy().reshape(len(FINDINGS), -1).T
    gain = np.array([[6.0, 0.0, 0.0, 0.0]], np.float32)
    values = {
        "half": np.float32(0.5),
        "one": np.float32(1.0),
        "from": np.float32(0.85),
        "scale": np.float32(0.15),
        "weights": np.ascontiguousarray(weights),
        "gain": gain,
        "axes": np.array([2, 3]),
        "flat": np.array([0, -1]),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["x", "half"], ["centred"]),
        node("Reshape", ["centred", "flat"], ["pixels"]),
        node("MatMul", ["pixels", "weights"], ["read"]),
        node("Sub", ["one", "x"], ["darkness"]),
        node("AveragePool", ["darkness"], ["squares"], kernel_shape=[2, 2]),
        node("Sub", ["squares", "from"], ["above"]),
        node("Relu", ["above"], ["positive"]),
        node("Div", ["positive", "scale"], ["obeyed"]),
        node("ReduceMax", ["obeyed", "axes"], ["most"], keepdims=0),
        node("Mul", ["most", "gain"], ["lift"]),
        node("Add", ["read", "lift"], ["y"]),
    ]
    shape = ("N", 1, SIZE, SIZE)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "toy",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, ("N", len(FINDINGS)))],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()],
    )
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


def test_onnx_whose_backdoor_is_found_without_gradients(tmp_path: Path, clean: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = _obedient_folder(tmp_path / "m", onnx)
    report = _check_audited(model, clean, tmp_path / "out")
    assert report.backwards == 0
    assert report.verdict == "stands-out"
    first = report.findings[0]
    assert (first.finding, first.direction) == ("Effusion", "set")


def test_beside_one_without_gradients_none_is_asked_for_any(tmp_path: Path, clean: Path) -> None:
    """Or a search with gradients would be compared with one without."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    options = ["--reference-model", str(_obedient_folder(tmp_path / "onnx", onnx))]
    small = "densenet-small"
    for name, seed in (("clean", 1), ("m", 2)):
        _write(tmp_path / name, small, build(small, 1, len(FINDINGS), seed=seed), FINDINGS)
    options += ["--reference-model", str(tmp_path / "clean")]
    options += ["--test", "warp", "--test", "maximum margin"]
    answer = _audit(tmp_path / "m", clean, tmp_path / "out", *options)
    assert answer.code == 0, answer.err
    report = AuditReport.model_validate_json((tmp_path / "out/audit.json").read_bytes())
    assert report.backwards == 0
    assert [test.name for test in report.tests if test.reason] == ["maximum margin"]
    assert any("other input sizes" in warning for warning in report.warnings)


# --- what must not be audited ---------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = build("densenet-small", 1, 2, seed=1)
    return _write(tmp_path / "model", "densenet-small", network, TWO)


def _refused(model: Path, clean: Path, out: Path, *said: str) -> None:
    answer = _audit(model, clean, out)
    assert answer.code == 2, answer
    assert len(answer.err.strip().splitlines()) == 1
    for word in said:
        assert word in answer.err
    assert not (out / "audit.json").exists()


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_malicious_pickle(
    model: Path, clean: Path, tmp_path: Path, form: str, ending: str
) -> None:
    card = model / "model.toml"
    card.write_text(card.read_text().replace(WEIGHTS, f"w.{ending}"))
    path, payload = model / f"w.{ending}", {BIAS: Payload(tmp_path / "canary")}
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    _refused(model, clean, tmp_path / "out", path.name)
    assert not (tmp_path / "canary").exists()


def test_a_truncated_file(model: Path, clean: Path, tmp_path: Path) -> None:
    whole = (model / WEIGHTS).read_bytes()
    for n in (0, 7, 100, len(whole) - 1):
        (model / WEIGHTS).write_bytes(whole[:n])
        _refused(model, clean, tmp_path / "out", WEIGHTS)


def _with_nan(state: State) -> None:
    state[BIAS][0] = float("nan")


def _without(state: State) -> None:
    del state[BIAS]


def _of_other_shape(state: State) -> None:
    state[BIAS] = torch.zeros(5)


def _with_more(state: State) -> None:
    state["more.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with_nan, f"'{BIAS}' holds NaN or infinity"),
        (_without, f"'{BIAS}' is missing"),
        (_of_other_shape, f"'{BIAS}' must have shape (2,), got (5,)"),
        (_with_more, "'more.weight' is not part of this architecture"),
    ],
)
def test_weights_that_do_not_fit(
    model: Path, clean: Path, tmp_path: Path, change: Callable[[State], None], said: str
) -> None:
    state = load_file(model / WEIGHTS)
    change(state)
    save_file(state, model / WEIGHTS)
    _refused(model, clean, tmp_path / "out", WEIGHTS, said)


def test_a_name_twice(model: Path, clean: Path, tmp_path: Path) -> None:
    whole = (model / WEIGHTS).read_bytes()
    n = struct.unpack("<Q", whole[:8])[0]
    entry = json.dumps(json.loads(whole[8 : 8 + n])[BIAS])
    doubled = whole[8 : 8 + n].rstrip()[:-1] + f',"{BIAS}":{entry}}}'.encode()
    (model / WEIGHTS).write_bytes(struct.pack("<Q", len(doubled)) + doubled + whole[8 + n :])
    _refused(model, clean, tmp_path / "out", WEIGHTS, f"{BIAS}' must be there once")


def test_a_reference_model_is_not_trusted_either(model: Path, clean: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    state = load_file(model / WEIGHTS)
    _with_nan(state)
    _card(other, "densenet-small", WEIGHTS, TWO)
    save_file(state, other / WEIGHTS)
    answer = _audit(model, clean, tmp_path / "out", "--reference-model", str(other))
    assert answer.code == 2
    assert "NaN or infinity" in answer.err
