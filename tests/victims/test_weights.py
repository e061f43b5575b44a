"""State dicts that torch.save wrote: read as tensors, whatever is around them; code never runs."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from lucency.errors import ModelError
from lucency.victims.weights import fill, read_weights


def tiny():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 3)
    )


STATE = tiny().state_dict()


def wrapped_twice(state):
    return {"epoch": 3, "optimizer": {"lr": 0.1}, "model": {"state_dict": state, "best": 0.8}}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ".tar"])
def test_a_state_dict_is_read(tmp_path, legacy, ending):
    path = tmp_path / f"w{ending}"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    read = read_weights(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        collections.OrderedDict,
        lambda s: {"state_dict": s},
        lambda s: {"state_dict": s, "epoch": 4, "arch": "densenet121"},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "loss": torch.tensor(1.0)},
        wrapped_twice,
        lambda s: {k: torch.nn.Parameter(v.float(), requires_grad=False) for k, v in s.items()},
        lambda s: {f"module.{k}": v for k, v in s.items()},
    ],
)
def test_what_a_training_wraps_around_it_is_taken_off(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt")
    assert [k.removeprefix("module.") for k in read] == list(STATE)
    assert not any(t.requires_grad for t in read.values())
    if any("module." in k for k in read):
        fill(network := tiny(), read, "w.pt")
        assert torch.equal(network.state_dict()["2.bias"], STATE["2.bias"])


# --- what must not be read ------------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def saved(value, *, legacy=False):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("place", ["alone", "among tensors", "as a name"])
def test_a_payload_does_not_run(tmp_path, form, place):
    canary, path = tmp_path / "canary", tmp_path / "w.pt"
    payload = Payload(canary)
    value = {
        "alone": payload,
        "among tensors": {**STATE, "2.bias": payload},
        "as a name": {**STATE, payload: STATE["2.bias"]},
    }[place]
    data = pickle.dumps(value) if form == "pickle" else saved(value, legacy=form == "legacy")
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"w\.pt must be a state dict"):
        read_weights(path)
    assert not canary.exists()
    if form == "pickle":
        pickle.loads(data)  # noqa: S301
        assert canary.exists()  # the payload works where it is let


def test_the_environment_cannot_switch_the_guard_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "w.pt").write_bytes(saved({"a": Payload(tmp_path / "canary")}))
    with pytest.raises(ModelError):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "canary").exists()


def test_a_pickled_model_is_refused_with_the_way_out(tmp_path):
    torch.save(tiny(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"asks for torch\.nn\.\S+Sequential.* as safetensors"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_with_the_way_out(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)).save(tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"TorchScript archive; export the model to ONNX"):
        read_weights(tmp_path / "w.pt")


def zipped(compress=zipfile.ZIP_DEFLATED):
    """The same archive, but compressed, and with 64 MiB of zeros in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(STATE))) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), compress_type=compress)
        new.writestr("archive/data/99", bytes(1 << 26), compress_type=compress)
    return file.getvalue()


def claiming(size):
    """An archive whose directory claims that its pickle has `size` bytes."""
    data = bytearray(saved(STATE))
    for signature, at in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
        place = data.index(signature)
        data[place + at : place + at + 8] = struct.pack("<II", size, size)
    return bytes(data)


WHOLE = saved(STATE)
HOSTILE = {
    "empty": b"",
    "text": b"these are no weights",
    "torn zip": WHOLE[: len(WHOLE) // 2],
    "zip without its end": WHOLE[:-30],
    "only a zip's first bytes": b"PK\x03\x04" + bytes(100),
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "a bomb": zipped(),
    "a header that claims 4 GB": claiming(0xFFFFFFF0),
    "torn legacy": saved(STATE, legacy=True)[:-20],
    "deep pickle": b"\x80\x02" + b"(" * 100_000,
    "a huge string": b"\x80\x02X" + struct.pack("<I", 0xFFFFFFF0),
    "a huge memo": b"\x80\x02r" + struct.pack("<I", 0xFFFFFFF0),
    "a safetensors file": struct.pack("<Q", 2) + b"{}",
    "a list": saved([STATE["2.bias"]]),
    "a tensor": saved(STATE["2.bias"]),
    "a number inside": saved({"2.bias": 1.0}),
    "a number as name": saved({1: STATE["2.bias"]}),
    "numpy inside": saved({"2.bias": np.zeros(3)}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"^w\.pt must "):
        read_weights(tmp_path / "w.pt")


def test_every_truncation_is_refused(tmp_path):
    for data in (WHOLE, saved(STATE, legacy=True)):
        for n in np.linspace(0, len(data) - 1, 40).astype(int):
            (tmp_path / "w.pt").write_bytes(data[:n])
            with pytest.raises(ModelError, match=r"^w\.pt must "):
                read_weights(tmp_path / "w.pt")


def test_mutated_files_never_crash(tmp_path):
    """Refused, or tensors: a flipped bit in a weight is another number."""
    generator, refused = np.random.default_rng(0), 0
    legacy = saved(STATE, legacy=True)
    for k in range(150):
        data = bytearray((WHOLE, legacy)[k % 2])
        for place in generator.integers(0, len(data), 1 + k % 4):
            data[place] = generator.integers(256)
        (tmp_path / "w.pt").write_bytes(bytes(data))
        try:
            read = read_weights(tmp_path / "w.pt")
            fill(tiny(), read, "w.pt")
        except ModelError:
            refused += 1
    assert refused > 15


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"w\.pt beside the card; it is absent"):
        read_weights(tmp_path / "w.pt")


# --- tensors that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.tensor([1.0, float("nan"), 0.0]), "holds NaN or infinity"),
        (torch.zeros(4), r"must have shape \(3,\), got \(4,\)"),
        (torch.zeros(1).expand(10**12), r"must have shape \(3,\), got \(1000000000000,\)"),
        (torch.zeros(3).double(), "must be torch.float32, got torch.float64"),
        (torch.zeros(3).to_sparse(), "must be stored densely, got torch.sparse_coo"),
        (torch.zeros(3, device="meta"), "must be stored densely, got torch.strided on meta"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, tensor, said):
    torch.save({**STATE, "2.bias": tensor}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=rf"w\.pt: .*'2.bias' {said}"):
        fill(tiny(), read_weights(tmp_path / "w.pt"), "w.pt")


def test_ignored_names_may_be_there_or_not():
    more = {**STATE, "thresholds": torch.zeros(3)}
    fill(tiny(), more, "w.pt", ignored=("thresholds",))
    fill(tiny(), STATE, "w.pt", ignored=("thresholds",))
    with pytest.raises(ModelError, match="'thresholds' is not part"):
        fill(tiny(), more, "w.pt")


def test_a_refused_file_leaves_the_network_alone():
    network = tiny()
    with pytest.raises(ModelError):
        fill(network, {**STATE, "0.weight": STATE["0.weight"] + 1, "2.bias": torch.zeros(9)}, "w")
    assert torch.equal(network.state_dict()["0.weight"], STATE["0.weight"])
