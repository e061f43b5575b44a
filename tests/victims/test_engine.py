"""Engines: the same numbers as torch, whatever the batch, the process and what is installed."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, MissingExtra, ModelError
from lucency.victims import engine as engines
from lucency.victims.architectures import build, channels_last
from lucency.victims.engine import engine_name, pick_engine, with_engine
from lucency.victims.engine_graph import BATCH, Graph, GraphEngine, Library
from lucency.victims.onnx_model import OnnxNetwork
from lucency.victims.victim import Passes, Victim, has_fast_bf16, predict

FINDINGS = ("A", "B", "C")
SIZE = 64
N = 2 * BATCH + 1


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


needs_openvino = needs("openvino")
needs_onnxruntime = needs("onnxruntime", "onnxscript")


class Tiny(nn.Module):
    """A convolution, five outputs by a linear layer, and perhaps something after it."""

    def __init__(self, after: nn.Module | None = None, *, has_head: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 5, 5, stride=2)
        self.after = after or nn.Identity()
        self.head = nn.Linear(5, 5) if has_head else nn.Identity()
        generator = torch.Generator().manual_seed(0x71)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x):
        return self.after(self.head(torch.relu(self.convolution(x)).mean((2, 3))))


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


def tiny(after=None, **changes) -> Victim:
    has_head = changes.pop("has_head", True)
    network = Tiny(after, has_head=has_head).eval()
    return replace(Victim(network, InputContract(size=32), FINDINGS), **changes)


def grey(n: int = N, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0x9E))


def logits(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return victim.logits(images)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, id="1 channel", marks=needs_openvino),
        pytest.param(3, id="3 channels", marks=needs_openvino),
    ],
)
def densenet(request):
    """A small DenseNet in torch, and the same by OpenVINO."""
    network = channels_last(build("densenet-small", request.param, 3, seed=5)).eval()
    victim = Victim(network, InputContract(size=SIZE, channels=request.param), FINDINGS)
    return victim, with_engine(victim, "openvino")


# --- the same numbers ---------------------------------------------------------------------------


def test_openvino_is_torch_on_a_densenet(densenet):
    victim, fast = densenet
    images = grey(size=SIZE)
    with torch.inference_mode():
        expected, features = victim.embed(images)
        found, entering = fast.embed(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entering, features, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.1
    assert (found.dtype, entering.dtype) == (torch.float32, torch.float32)
    assert fast.engine.head is not None


def test_an_image_has_the_same_bytes_in_any_batch(densenet):
    _, fast = densenet
    images = grey(size=SIZE)
    together, features = fast.engine(images.expand(-1, fast.contract.channels, -1, -1))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for rows in [torch.tensor([i]) for i in range(N)] + [order, order[: BATCH - 1]]:
        batch = images[rows].expand(-1, fast.contract.channels, -1, -1)
        found, entering = fast.engine(batch)
        assert torch.equal(found, together[rows])
        assert torch.equal(entering, features[rows])


@needs_openvino
@pytest.mark.skipif(not has_fast_bf16(torch.device("cpu")), reason="no bf16 on this processor")
def test_bf16_rounds_the_layers_and_not_the_logits():
    network = channels_last(build("densenet-small", 1, 3, seed=5)).eval()
    victim = Victim(network, InputContract(size=32), FINDINGS)
    fast = with_engine(replace(victim, bf16=True), "openvino")
    images = grey(64)
    expected, found = logits(victim, images), logits(fast, images)
    assert engine_name(fast).endswith("bf16")
    assert 0 < (found - expected).abs().max() < 0.05 * expected.std()
    assert (found != found.bfloat16().float()).float().mean() > 0.9


@pytest.mark.parametrize(
    ("after", "has_head", "closed"),
    [
        (None, True, True),
        (Twice(), True, False),
        (nn.Sigmoid(), True, False),
        (nn.ReLU(inplace=True), True, False),
        (None, False, False),
    ],
    ids=["head last", "doubled", "sigmoid", "changed in place", "no head"],
)
@needs_openvino
def test_whatever_follows_the_head(after, has_head, closed):
    victim = tiny(after, has_head=has_head)
    fast = with_engine(victim, "openvino")
    with torch.inference_mode():
        expected, features = victim.embed(grey())
        found, entering = fast.embed(grey())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (fast.engine.head is not None) == closed
    if has_head:
        torch.testing.assert_close(entering, features, rtol=1e-4, atol=1e-5)
    else:
        assert features is None
        assert entering is None


@needs_openvino
def test_probabilities_and_columns_are_read_from_an_engine_too(monkeypatch):
    monkeypatch.setattr(engines, "has_fast_bf16", lambda device: True)
    victim = tiny(nn.Sigmoid(), outputs="probabilities", columns=(4, 0, 2), bf16=True)
    fast = with_engine(victim, "openvino")
    found, expected = logits(fast, grey()), logits(replace(victim, bf16=False), grey())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    by_hand = torch.special.logit(victim.network((grey() - 0.5) / 0.25))[:, [4, 0, 2]]
    torch.testing.assert_close(found, by_hand.detach(), rtol=1e-3, atol=1e-4)
    # A probability in bf16 would be a step of 1/256.
    assert engine_name(fast).endswith("float32")


@needs_onnxruntime
def test_onnx_runtime_is_torch(monkeypatch, tmp_path):
    victim = tiny()
    fast = with_engine(victim, "onnxruntime")
    with torch.inference_mode():
        expected, features = victim.embed(grey())
        found, entering = fast.embed(grey())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entering, features, rtol=1e-4, atol=1e-5)
    assert engine_name(fast).startswith("onnxruntime ")
    assert torch.equal(logits(copied(fast), grey()), found)
    alone = torch.cat([logits(fast, image[None]) for image in grey()])
    assert torch.equal(alone, found)
    # A model that came as ONNX is named by what computes it.
    (tmp_path / "model.onnx").write_bytes(fast.engine.graph.model)
    network = OnnxNetwork(tmp_path / "model.onnx", victim.contract, 5)
    given = Victim(network, victim.contract, FINDINGS, differentiable=False)
    assert engine_name(with_engine(given)) == engine_name(fast)
    # Second in the order, for a network in float32 alone.
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert engine_name(with_engine(victim)).startswith("onnxruntime ")


@needs_openvino
def test_no_image_gives_no_row():
    victim = tiny()
    fast = with_engine(victim, "openvino")
    outputs, features = fast.engine(torch.zeros(0, 1, 32, 32))
    assert (outputs.shape, features.shape) == ((0, 5), (0, 5))


@needs_openvino
def test_the_input_is_unchanged_in_any_layout():
    fast = with_engine(tiny(), "openvino")
    batch = grey().contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    strided = torch.stack([batch, -batch], dim=4)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(fast.engine(batch)[0], fast.engine(strided)[0])
    assert torch.equal(batch, before)


@needs_openvino
def test_gradients_are_torchs_and_passes_are_counted_once():
    victim = tiny()
    fast = with_engine(victim, "openvino")
    assert fast.passes is victim.passes
    assert victim.passes == Passes(0, 0)
    films = (255 * grey()[:, 0]).byte().numpy()
    np.testing.assert_allclose(predict(fast, films), predict(victim, films), rtol=1e-4, atol=1e-5)
    assert victim.passes == Passes(2 * N, 0)
    image = grey(2).requires_grad_(True)
    by_torch, by_engine = victim.logits(image), fast.logits(image)
    assert torch.equal(by_torch, by_engine)
    assert torch.equal(
        victim.gradient(by_torch.sum(), image), fast.gradient(by_engine.sum(), image)
    )
    assert victim.passes == Passes(2 * N + 4, 4)


# --- another process ----------------------------------------------------------------------------


def copied(victim: Victim) -> Victim:
    """What arrives in another process: the state alone, without anything compiled."""
    state = victim.engine.__getstate__()
    assert state["_run"] is None
    other = GraphEngine.__new__(GraphEngine)
    other.__dict__.update(copy.deepcopy(state))
    return replace(victim, engine=other)


def test_a_copy_compiles_again_and_gives_the_same_bytes(densenet):
    _, fast = densenet
    images = grey(size=SIZE)
    expected = logits(fast, images)
    for other in (copied(fast), replace(fast, engine=copy.copy(fast.engine))):
        assert other.engine._run is None
        assert torch.equal(logits(other, images), expected)
        assert other.engine._run is not None
        assert engine_name(other) == engine_name(fast)


# By default OpenVINO's import and conversions call its maker, and leave a number at home.
SILENT = """
import multiprocessing, sys, torch
from lucency.data.preprocess import InputContract
from lucency.victims.engine import with_engine
from lucency.victims.victim import Victim
BEFORE
started = []
multiprocessing.Process.start = lambda self: started.append(self)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2)).eval()
fast = with_engine(Victim(network, InputContract(size=16), ("A", "B")), "openvino")
fast.logits(torch.rand(1, 1, 16, 16))
if "openvino_telemetry" in sys.modules:
    import openvino_telemetry
    openvino_telemetry.Telemetry().sender.executor.shutdown(wait=True)
print(len(started))
"""
# Somebody who has imported it for purposes of their own.
IMPORTED = """
import multiprocessing.process
multiprocessing.Process.start = lambda self: None
import openvino, openvino_telemetry
openvino_telemetry.Telemetry().sender.executor.shutdown(wait=True)
from openvino_telemetry.utils.sender import TelemetrySender
openvino_telemetry.Telemetry().sender = TelemetrySender()
"""


@needs_openvino
@pytest.mark.parametrize("before", ["", IMPORTED], ids=["first import", "imported before"])
def test_openvino_reports_to_nobody(tmp_path, before):
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SILENT.replace("BEFORE", before)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0\n", done.stderr[-2000:]
    assert (tmp_path / "intel").exists() == bool(before)


# --- which engine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extra"), [("openvino", r"lucency\[openvino\]"), ("onnxruntime", r"lucency\[onnx\]")]
)
def test_an_engine_that_is_not_installed_names_the_extra(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=f"engine {name} needs .*pip install '{extra}'"):
        with_engine(tiny(), name)


@pytest.mark.parametrize("bf16", [False, True])
def test_without_any_engine_auto_is_torch_and_says_why(monkeypatch, bf16):
    monkeypatch.setattr(engines, "has_fast_bf16", lambda device: True)
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    victim = tiny(bf16=bf16)
    picked = pick_engine(victim)
    assert picked.engine is None
    assert "lucency[openvino]" in picked.reasons[0]
    assert ("slower in float32" if bf16 else "lucency[onnx]") in picked.reasons[1]
    assert with_engine(victim).engine is None
    assert engine_name(victim) == f"torch {torch.__version__}, {'bf16' if bf16 else 'float32'}"


@needs_openvino
def test_auto_is_openvino_and_torch_takes_it_away_again():
    fast = with_engine(tiny())
    assert engine_name(fast).startswith("openvino ")
    assert pick_engine(fast).reasons == ()
    assert with_engine(fast, "torch").engine is None


def test_an_unknown_engine_names_the_known_ones():
    with pytest.raises(ConfigError, match="auto, torch, openvino, onnxruntime, got 'tensorrt'"):
        with_engine(tiny(), "tensorrt")


def test_a_victim_without_gradients_keeps_its_own_session():
    victim = tiny(differentiable=False)
    assert with_engine(victim, "openvino") is victim


@pytest.mark.parametrize("after", [nn.Linear(7, 5), nn.LSTM(5, 5)], ids=["cannot run", "a pair"])
def test_auto_never_fails(after):
    """Not even with a network that fails: whoever asks it will say so."""
    victim = tiny(after)
    picked = pick_engine(victim)
    assert picked.engine is None
    assert len(picked.reasons) == 2
    with pytest.raises(ModelError, match="engine openvino must compute this network, but cannot"):
        with_engine(victim, "openvino")


def test_a_network_on_another_device_stays_with_torch():
    network = Tiny().eval().to("meta")
    victim = Victim(network, InputContract(size=32), FINDINGS)
    assert pick_engine(victim).reasons == ("The network is on meta, where torch is fastest.",)
    with pytest.raises(ConfigError, match=r"openvino computes on the processor.* on meta"):
        with_engine(victim, "openvino")


# --- engines that are wrong ---------------------------------------------------------------------


def fake(change, *, computes_bf16: bool = False) -> Library:
    """A library that computes by torch, and changes what it returns."""

    def convert(network, batch, precision):
        fake_networks.append(network)
        return Graph(b"", b"", precision, "1.0")

    def compile_graph(graph):
        def run(chunks):
            with torch.no_grad():
                every = [fake_networks[-1](torch.from_numpy(chunk)) for chunk in chunks]
            return [tuple(change(value.numpy()) for value in values) for values in every]

        return run

    return Library("fake", computes_bf16, convert, compile_graph)


fake_networks: list[nn.Module] = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x + 0.5, "off by 0.5"),
        (lambda x: x * np.nan, "off by nan"),
        (lambda x: x[:, :2], r"of shape \(5, 5\), got \(5, 2\)"),
    ],
    ids=["shifted", "not finite", "cut"],
)
def test_an_engine_that_computes_something_else_is_refused(monkeypatch, change, said):
    monkeypatch.setattr(engines, "LIBRARIES", {"fake": fake(change)})
    victim = tiny(Twice())
    with pytest.raises(ModelError, match=said):
        with_engine(victim, "fake")
    picked = pick_engine(victim)
    assert picked.engine is None
    assert "choose the engine torch" in picked.reasons[0]


def test_the_tolerance_is_that_of_the_precision(monkeypatch):
    """Off by a hundredth of the outputs' spread: rounding in bf16, an error in float32."""
    monkeypatch.setattr(engines, "has_fast_bf16", lambda device: True)
    victim = tiny(Twice(), bf16=True)
    spread = float(victim.network(engines._probes(victim)).detach().std())
    for computes_bf16, share, is_refused in (
        (True, 0.01, False),
        (True, 0.2, True),
        (False, 0.0001, False),
        (False, 0.01, True),
    ):
        library = fake(lambda x, off=share * spread: x + off, computes_bf16=computes_bf16)
        monkeypatch.setattr(engines, "LIBRARIES", {"fake": library})
        found = pick_engine(replace(victim, bf16=computes_bf16))
        assert (found.engine is None) == is_refused, (computes_bf16, share, found.reasons)


def broken(network, batch, precision):
    raise RuntimeError("no such operator: roll")


def marks(network: nn.Module) -> list[object]:
    """What an engine must leave behind as it was."""
    return [
        *(
            (m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
            for m in network.modules()
        ),
        *((p.requires_grad, p.dtype, p.clone()) for p in network.parameters()),
    ]


@pytest.mark.parametrize("name", ["broken", "fake", pytest.param("openvino", marks=needs_openvino)])
def test_the_network_is_left_as_it_was(monkeypatch, name):
    libraries = {
        **engines.LIBRARIES,
        "broken": Library("broken", False, broken, lambda graph: None),
        "fake": fake(lambda x: x),
    }
    monkeypatch.setattr(engines, "LIBRARIES", libraries)
    victim = tiny(nn.Dropout(0.5))
    victim.network.train()
    victim.network.head.eval()
    victim.network.convolution.weight.requires_grad_(False)
    before, keys = marks(victim.network), list(victim.network.__dict__)
    if name == "broken":
        with pytest.raises(ModelError, match=r"engine broken .*\(no such operator: roll\)"):
            with_engine(victim, name)
    else:
        with_engine(victim, name)
    after = marks(victim.network)
    assert str(before) == str(after)
    assert list(victim.network.__dict__) == keys
    assert victim.passes == Passes(0, 0)


@needs_openvino
def test_the_engine_keeps_the_weights_of_its_day():
    victim = tiny()
    fast = with_engine(victim, "openvino")
    before = logits(fast, grey())
    with torch.no_grad():
        for parameter in victim.network.parameters():
            parameter.mul_(2)
    assert torch.equal(logits(fast, grey()), before)
    assert torch.equal(logits(copied(fast), grey()), before)
