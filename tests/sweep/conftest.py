"""A finished tiny sweep, once for all tests of it."""

import pytest

from tiny_sweep import TinySweep, run_here, write_toml


@pytest.fixture(scope="session")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory) -> TinySweep:
    folder = tmp_path_factory.mktemp("tiny-sweep")
    toml = write_toml(folder)
    return TinySweep(toml, folder / "sweep", run_here(toml, folder / "sweep"))
