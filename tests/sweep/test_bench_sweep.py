"""The benchmark of a sweep, small: it measures, and what it compares is the same."""

from pathlib import Path

import pytest

from lucency.bench.sweeping import SweepSize, bench_sweep
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
