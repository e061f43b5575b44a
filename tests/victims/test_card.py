"""A model on disk gives the same logits, or is refused by the name of what is wrong."""

import json
import pickle
import re
import struct
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save_file

from lucency.config import load_toml
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, ModelError
from lucency.victims.architectures import ARCHITECTURES
from lucency.victims.card import ModelCard, load_victim, save_victim
from lucency.victims.foreign import FOREIGN
from lucency.victims.victim import has_fast_bf16, predict
from lucency.victims.weights import PICKLED
from lucency.victims.xrv import XRV_WEIGHTS

BIAS = "class_layers.out.bias"


@pytest.fixture
def folder(tmp_path, victim):
    save_victim(tmp_path / "model", victim, "densenet-small", "for tests")
    return tmp_path / "model"


def weights(folder):
    return load_file(folder / "weights.safetensors")


def rewrite(folder, tensors):
    save_file(tensors, folder / "weights.safetensors")


# --- round trip -----------------------------------------------------------------------------------


def test_the_same_logits_come_back_from_folder_and_card(folder, victim, films):
    expected = predict(victim, films)
    for path in (folder, folder / "model.toml"):
        loaded = load_victim(path)
        np.testing.assert_array_equal(predict(loaded, films), expected)
        assert (loaded.contract, loaded.findings) == (victim.contract, victim.findings)
        assert not loaded.network.training


@pytest.mark.parametrize("bf16", [False, True])
def test_the_precision_comes_back_as_far_as_the_device_has_it(tmp_path, victim, bf16):
    save_victim(tmp_path, replace(victim, bf16=bf16), "densenet-small", "")
    assert load_victim(tmp_path).bf16 == (bf16 and has_fast_bf16(torch.device("cpu")))


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(findings=st.tuples(names, names, names), purpose=names)
@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_survives_the_card(tmp_path, victim, findings, purpose):
    save_victim(tmp_path, replace(victim, findings=findings), "densenet-small", purpose)
    card = load_toml(tmp_path / "model.toml", ModelCard)
    assert (card.model.findings, card.model.purpose) == (findings, purpose)


@pytest.mark.parametrize(
    "text", ['"', "\\", "\n", "\x7f", "\x00", "😀", "é", "[x]", "'''", "\u2028"]
)
def test_awkward_text_survives_the_card(tmp_path, victim, text):
    save_victim(tmp_path, replace(victim, findings=(text, "B", "C")), "densenet-small", text)
    card = load_toml(tmp_path / "model.toml", ModelCard)
    assert (card.model.findings[0], card.model.purpose) == (text, text)


@pytest.mark.parametrize(
    "contract",
    [
        InputContract(size=32, crop=1e-05 + 0.6, resize="area", mean=(1e-07,), std=(123456.789,)),
        InputContract(size=48, channels=3, mean=(0.1, 0.2, 0.3), std=(1 / 3, 1e17, 1.0)),
    ],
)
def test_the_contract_survives_the_card(tmp_path, victim, contract):
    save_victim(tmp_path, replace(victim, contract=contract), "densenet-small", "")
    assert load_toml(tmp_path / "model.toml", ModelCard).input == contract


def test_blank_findings_are_skipped_and_come_back(folder, tmp_path, films):
    edit(folder, '["A", "B", "C"]', '["", "B", ""]')
    loaded = load_victim(folder)
    assert (loaded.findings, loaded.columns) == (("B",), (1,))
    edit(folder, '["", "B", ""]', '["A", "B", "C"]')
    whole = predict(load_victim(folder), films)
    np.testing.assert_array_equal(predict(loaded, films), whole[:, 1:2])
    save_victim(tmp_path / "again", loaded, "densenet-small", "")
    again = load_victim(tmp_path / "again")
    assert (again.findings, again.columns) == (("B",), (1,))
    np.testing.assert_array_equal(predict(again, films), whole[:, 1:2])


def test_probabilities_come_back_and_are_read_as_logits(folder, tmp_path, films):
    """What the network returns is taken for a probability; the card keeps that."""
    edit(folder, 'outputs = "logits"', 'outputs = "probabilities"')
    loaded = load_victim(folder)
    assert loaded.outputs == "probabilities"
    save_victim(tmp_path / "again", loaded, "densenet-small", "")
    assert load_victim(tmp_path / "again").outputs == "probabilities"


# --- weights that are not what they should be -----------------------------------------------------


def missing(tensors):
    del tensors[BIAS]


def extra(tensors):
    tensors["backdoor.weight"] = torch.zeros(1)


def wrong_shape(tensors):
    tensors[BIAS] = torch.zeros(4)


def scalar(tensors):
    tensors[BIAS] = torch.tensor(0.0)


def empty(tensors):
    tensors[BIAS] = torch.zeros(0)


def put(value):
    def change(tensors):
        tensors[BIAS][1] = value

    return change


def of_type(dtype):
    def change(tensors):
        tensors[BIAS] = tensors[BIAS].to(dtype)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (missing, "'class_layers.out.bias' is missing"),
        (extra, "'backdoor.weight' is not part of this architecture"),
        (wrong_shape, r"'class_layers.out.bias' must have shape \(3,\), got \(4,\)"),
        (scalar, r"must have shape \(3,\), got \(\)"),
        (empty, r"must have shape \(3,\), got \(0,\)"),
        (put(float("nan")), "'class_layers.out.bias' holds NaN or infinity"),
        (put(float("inf")), "'class_layers.out.bias' holds NaN or infinity"),
        *(
            (of_type(dtype), f"'class_layers.out.bias' must be torch.float32, got {dtype}")
            for dtype in (
                torch.float64,
                torch.bfloat16,
                torch.int64,
                torch.bool,
                torch.complex64,
                torch.float8_e4m3fn,
            )
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(folder, change, said):
    tensors = weights(folder)
    change(tensors)
    rewrite(folder, tensors)
    with pytest.raises(ModelError, match=rf"weights\.safetensors: .*{said}"):
        load_victim(folder)


@pytest.mark.parametrize("name", ["features.conv0.weight", "features.norm5.running_var"])
def test_a_weight_that_is_not_finite_is_named_wherever_it_is(folder, name):
    tensors = weights(folder)
    tensors[name].view(-1)[-1] = float("nan")
    rewrite(folder, tensors)
    with pytest.raises(ModelError, match=f"'{name}' holds NaN or infinity"):
        load_victim(folder)


def test_a_name_twice_is_refused(folder):
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    n = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + n])
    again = f',"{BIAS}":{json.dumps(header[BIAS])}}}'.encode()
    doubled = whole[8 : 8 + n].rstrip()[:-1] + again
    data = struct.pack("<Q", len(doubled)) + doubled + whole[8 + n :]
    assert BIAS in load(data)  # the library does not mind
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"{BIAS}' must be there once, but is there twice"):
        load_victim(folder)


# --- files that are not what they should be -------------------------------------------------------


def test_truncated_weights_are_refused(folder):
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for n in [
        0,
        4,
        8,
        9,
        header // 2,
        header - 1,
        header,
        header + 1,
        len(whole) // 2,
        len(whole) - 1,
    ]:
        path.write_bytes(whole[:n])
        with pytest.raises(ModelError, match=r"weights\.safetensors must be a safetensors file"):
            load_victim(folder)


def header(value, payload=b""):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + payload


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


HOSTILE = {
    "a longer header than the file": struct.pack("<Q", 2**62) + b"{}",
    "a header of no length": struct.pack("<Q", 0),
    "nested too deeply": header(b'{"a":' * 100_000),
    "no object": header([1, 2]),
    "not UTF-8": header(b'{"\xff\xfe": 1}'),
    "a shape that overflows": header(tensor(shape=(2**40, 2**40)), b"\0" * 4),
    "a shape that differs from its bytes": header(tensor(shape=(2,)), b"\0" * 4),
    "a negative shape": header(tensor(shape=(-1,)), b"\0" * 4),
    "offsets past the end": header(tensor(offsets=(0, 400)), b"\0" * 4),
    "offsets backwards": header(tensor(offsets=(4, 0)), b"\0" * 4),
    "a hole between tensors": header(tensor(offsets=(4, 8)), b"\0" * 8),
    "an unknown type": header(tensor(dtype="PICKLE"), b"\0" * 4),
    "a type torch lacks": header(tensor(dtype="F6_E2M3", shape=(4,), offsets=(0, 3)), b"\0" * 3),
    "an empty file": b"",
    "only an empty header": header({}),
    "a zip": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_weights_are_refused_quickly(folder, content):
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        load_victim(folder)


def tiny(channels, n_findings):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, n_findings)
    )


def test_1000_mutated_weights_never_crash(tmp_path, victim, monkeypatch):
    """Refused, or a network of finite weights: a flipped bit in a weight is another number."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny)
    save_victim(tmp_path, replace(victim, network=tiny(1, 3)), "tiny", "")
    path = tmp_path / "weights.safetensors"
    whole = path.read_bytes()
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    generator, refused = np.random.default_rng(0), 0
    for k in range(1000):
        data = bytearray(whole)
        for place in generator.integers(0, len(data) if k % 10 == 0 else length, 1 + k % 3):
            data[place] = generator.integers(256)
        path.write_bytes(bytes(data))
        try:
            loaded = load_victim(tmp_path)
        except ModelError:
            refused += 1
        else:
            assert all(torch.isfinite(t).all() for t in loaded.network.state_dict().values())
    assert refused > 800


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("form", ["pickle", "torch zip", "torch legacy"])
def test_a_pickle_is_refused_and_does_not_run(folder, tmp_path, form):
    canary, path = tmp_path / "canary", folder / "weights.safetensors"
    payload = {BIAS: Payload(canary)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "torch zip")
    with pytest.raises(ModelError, match=r"weights\.safetensors must be a safetensors file"):
        load_victim(folder)
    assert not canary.exists()


# --- cards ----------------------------------------------------------------------------------------


def edit(folder, old, new):
    card = (folder / "model.toml").read_text()
    assert old in card
    (folder / "model.toml").write_text(card.replace(old, new))


@pytest.mark.parametrize(
    "name", ["../weights.safetensors", "/etc/passwd", "sub/weights.safetensors", "..", ".", ""]
)
def test_weights_outside_the_folder_are_refused(folder, name):
    save_file(weights(folder), folder.parent / "weights.safetensors")
    edit(folder, '"weights.safetensors"', json.dumps(name))
    with pytest.raises(ModelError, match="beside the card"):
        load_victim(folder)


def test_absent_weights_are_named(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors beside the card; it is absent"):
        load_victim(folder)


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ('"densenet-small"', '"densenet"', ConfigError, "architecture must be one of"),
        ('"densenet-small"', '"densenet121"', ModelError, "tensor .*; check `architecture`"),
        ('["A", "B", "C"]', '["A", "B"]', ModelError, r"class_layers.out.*check .*`findings`"),
        ('["A", "B", "C"]', "[]", ConfigError, "findings"),
        ("channels = 1", "channels = 3", ModelError, "features.conv0.weight"),
        ("size = 32", "size = 16", ConfigError, "size must be at least 32"),
        ("size = 32", "size = 100000", ConfigError, "size"),
        ('outputs = "logits"', 'outputs = "softmax"', ConfigError, "outputs"),
        ("[input]", "[inputs]", ConfigError, "input"),
        ('["A", "B", "C"]', '["", "", ""]', ModelError, "must name at least one output"),
        ('["A", "B", "C"]', '["A", "B", "A"]', ModelError, "each output once, got 'A' 2 times"),
        ('"densenet-small"', '"torchvision:"', ConfigError, "architecture must be one of"),
        ('"densenet-small"', '"keras:a.b"', ConfigError, "or package.module:factory, got 'keras:a"),
        ('"densenet-small"', '"a b:c"', ConfigError, "architecture must be one of"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(folder, old, new, error, said):
    edit(folder, old, new)
    with pytest.raises(error, match=said):
        load_victim(folder)


# --- the page that describes cards ----------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def example_cards():
    """The indented cards of the page."""
    text = PAGE.read_text(encoding="utf-8").split("## The model card")[1]
    blocks = re.findall(r"(?:^    .*\n|^\n)+", text, flags=re.M)
    return [textwrap.dedent(b[b.index("    [model]") :]) for b in blocks if "    [model]" in b]


def test_the_example_cards_of_the_page_are_valid(tmp_path):
    cards = []
    for text in example_cards():
        (tmp_path / "model.toml").write_text(text)
        cards.append(load_toml(tmp_path / "model.toml", ModelCard))
    assert [c.model.architecture for c in cards] == ["densenet121", "xrv:densenet121-res224-nih"]
    name = "densenet121-res224-nih"
    assert cards[1].model.findings == XRV_WEIGHTS[name].findings
    XRV_WEIGHTS[name].require(name, cards[1].input, len(cards[1].model.findings))


def test_the_page_names_every_kind_of_architecture():
    page = PAGE.read_text(encoding="utf-8").split("## Architectures")[1]
    for package in FOREIGN:
        assert f'| `"{package}:NAME"` |' in page
    for ending in PICKLED:
        assert f"`{ending}`" in PAGE.read_text(encoding="utf-8")
