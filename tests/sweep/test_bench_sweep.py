"""The benchmark of a sweep, small: it measures, and what it compares is the same."""

from pathlib import Path

import pytest
import torch

from lucency.bench.sweeping import SweepSize, bench_sweep, repeated_epochs
from lucency.victims.checkpoint import Checkpoint, save_checkpoint
from tiny_sweep import write_toml


@pytest.mark.slow
def test_a_small_benchmark(tmp_path: Path) -> None:
    toml = write_toml(tmp_path, ("seeds = [3, 4]", "seeds = [3]"), ("epochs = 2", "epochs = 1"))
    size = SweepSize(settings=toml, kills=1, between_s=(3.0, 6.0), ray=False)
    found = {row.name: row for row in bench_sweep(5, size=size).rows}
    assert found["kill -9 at random moments"].value == 1
    differing = [row for name, row in found.items() if "differ" in name or "again" in name]
    assert len(differing) >= 3
    for row in differing:
        assert row.met, row
    assert (found["two workers, faster by"].value or 0) > 0


def test_an_epoch_that_is_done_again_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "checkpoint" / "backdoored.safetensors"
    path.parent.mkdir(parents=True)
    seen: dict[Path, tuple[int, int]] = {}
    weights = {"w": torch.zeros(1)}
    found = []
    for epochs in (1, 2, 2, 3, 1):
        optimiser = {"state": {}, "param_groups": []}
        save_checkpoint(path, Checkpoint("t", [{}] * epochs, weights, weights, optimiser, {}))
        found += [repeated_epochs(tmp_path, seen), repeated_epochs(tmp_path, seen)]
    assert found == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    path.write_bytes(b"torn")
    assert repeated_epochs(tmp_path, seen) == 0
