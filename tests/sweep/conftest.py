"""A finished tiny sweep, once for all tests of it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tiny_sweep import Here, run_here, write_toml


class TinySweep(NamedTuple):
    """toml: its settings; folder: the finished sweep; pool: what was done for it."""

    toml: Path
    folder: Path
    pool: Here


@pytest.fixture(scope="session")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory) -> TinySweep:
    folder = tmp_path_factory.mktemp("tiny-sweep")
    toml = write_toml(folder)
    return TinySweep(toml, folder / "sweep", run_here(toml, folder / "sweep"))
