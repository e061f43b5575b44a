"""A checkpoint comes back exactly, or is refused by name."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lucency.errors import CannotWrite, IntegrityError
from lucency.victims.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def state():
    """What a training holds after three steps."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-3, total_steps=9)
    for _ in range(3):
        network(torch.randn(2, 2, 5, 5)).square().sum().backward()
        optimiser.step()
        schedule.step()
    weights = network.state_dict()
    return Checkpoint(
        training="0123",
        history=[{"epoch": 1, "loss": 0.1 + 0.2, "validation_auroc": None}],
        network=weights,
        best={k: v + 1 for k, v in weights.items()},
        optimiser=optimiser.state_dict(),
        schedule=schedule.state_dict(),
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "unfinished.safetensors"
    save_checkpoint(path, state())
    return path


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype
        assert torch.equal(a[key], b[key])


def assert_same(a, b):
    assert (a.training, a.history) == (b.training, b.history)
    assert_same_tensors(a.network, b.network)
    assert_same_tensors(a.best, b.best)
    assert a.optimiser["state"].keys() == b.optimiser["state"].keys()
    for index, slots in a.optimiser["state"].items():
        assert_same_tensors(slots, b.optimiser["state"][index])


def test_comes_back_exactly(path):
    kept, saved = load_checkpoint(path), state()
    assert_same(kept, saved)
    plain = {k: v for k, v in saved.schedule.items() if k in kept.schedule}
    assert json.dumps(kept.schedule) == json.dumps(plain)
    assert "last_epoch" in kept.schedule
    groups = json.loads(json.dumps(saved.optimiser["param_groups"]))
    assert kept.optimiser["param_groups"] == groups


def test_same_state_same_bytes_and_no_temp_file(path):
    first = path.read_bytes()
    save_checkpoint(path, state())
    assert_same(load_checkpoint(path), state())
    assert len(path.read_bytes()) == len(first)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_plateau_schedule_keeps_its_infinite_best(tmp_path):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser).state_dict()
    kept = Checkpoint("", [], {}, {}, optimiser.state_dict(), schedule)
    save_checkpoint(tmp_path / "c.safetensors", kept)
    assert load_checkpoint(tmp_path / "c.safetensors").schedule == schedule


def refused(path):
    with pytest.raises(IntegrityError, match=r"unfinished\.safetensors.* delete it"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", range(20))
def test_truncated_anywhere_it_is_refused(path, part):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * part // 20])
    refused(path)


def test_every_kind_of_bit_flip_is_refused(path):
    """In length, header and tensors: safetensors itself would let those in the tensors pass."""
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    generator = np.random.default_rng(0)
    places = [
        *range(8),
        *generator.integers(8, header, 60),
        *generator.integers(header, len(whole), 60),
    ]
    for place in places:
        rotten = bytearray(whole)
        rotten[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(rotten))
        refused(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04.", b"{}", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}"],
)
def test_foreign_bytes_are_refused(path, content):
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("metadata", [None, {"state": "{}"}, {"state": "{}", "sha256": "0" * 64}])
def test_a_safetensors_file_that_is_no_checkpoint_is_refused(path, metadata):
    save_file(load_file(path), path, metadata=metadata)
    refused(path)


def test_an_absent_file_and_a_folder_are_refused_by_name(tmp_path):
    refused(tmp_path / "unfinished.safetensors")
    (tmp_path / "unfinished.safetensors").mkdir()
    refused(tmp_path / "unfinished.safetensors")


def test_an_unwritable_place_is_named_and_the_old_file_stays(path, monkeypatch):
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lucency.victims.checkpoint.save_file", full)
    with pytest.raises(CannotWrite, match=r"unfinished\.safetensors.*No space left"):
        save_checkpoint(path, state())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
