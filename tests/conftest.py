"""Fixtures that every folder of tests shares."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny_run import TinyRun, call, write_toml

LONGEST_S = 400


@pytest.fixture(scope="session")
def cxr_data() -> Path:
    """The folder of real chest X-rays, which is not part of this repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real chest X-rays: set CXR_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    """A finished run of the tiny experiment, on one thread and without a network."""
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    called: list[str] = []
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            called.append(str(address))
            raise OSError(f"the tests are offline: {address}")
        connect(self, address)

    def refuse_name(host: Any, *_: Any, **__: Any) -> None:
        called.append(str(host))
        raise OSError(f"the tests are offline: {host}")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse_name)
        toml, root = write_toml(folder), folder / "runs"
        answer = call("run", toml, "--out", root, "--json")
    (run,) = root.iterdir()
    yield TinyRun(toml, root, run, answer, tuple(called))
    torch.set_num_threads(threads)


@pytest.fixture
def never_longer() -> Iterator[None]:
    """Ends a test that would hang; Ray too checks for signals while it waits."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many as a worker, or another process of a test, has: sums are the same to the last bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
