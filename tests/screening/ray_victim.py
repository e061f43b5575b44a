"""A network for workers: it tells where it runs, waits, dies and fails as the test says.

What it is to do stands in files of the folder `LUCENCY_TEST_WATCH`, which all processes see.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from lucency import manifest
from lucency.data.guard import WorkerError
from lucency.errors import MissingExtra, ModelError
from screened_model import CARD, model_folder
from toy_victims import Toy

VARIABLE = "LUCENCY_TEST_WATCH"
DIGEST = "LUCENCY_TEST_DIGEST"
if DIGEST in os.environ:
    # Somebody may edit the source between the start of the test and that of a worker.
    manifest.code_digest = lambda: os.environ[DIGEST]  # type: ignore[assignment]
LONGEST_S = 120
"""No wait of a worker is longer; then it goes on, and the test sees what it did not wait for."""


class Watched(Toy):
    """`Toy`; in a process that the test did not name as its own, also does what the files say."""

    def forward(self, x: Tensor) -> Tensor:
        folder = Path(os.environ[VARIABLE])
        if (folder / "test-process").read_text() != str(os.getpid()):
            _obey(folder)
        return super().forward(x)


class Note:
    """A network that has one makes its worker import this module."""


def watched() -> nn.Module:
    return Watched()


def watched_folder(folder: Path) -> Path:
    """A model folder with this network."""
    model_folder(folder)
    card = CARD.replace("screened_model:obedient", "ray_victim:watched")
    (folder / "model.toml").write_text(card)
    return folder


def workers(folder: Path) -> dict[int, tuple[int, str]]:
    """Process -> (its number of torch's threads, the node that it runs on)."""
    seen = {}
    for path in folder.glob("worker-*"):
        threads, node = path.read_text().split()
        seen[int(path.name.partition("-")[2])] = (int(threads), node)
    return seen


def _obey(folder: Path) -> None:
    _introduce(folder)
    if (together := folder / "together").exists():
        _wait(lambda: len(workers(folder)) >= int(together.read_text()))
    if (folder / "hold").exists():
        (folder / f"held-{os.getpid()}").touch()
        _wait(lambda: not (folder / "hold").exists())
    if _claim(folder / "kill", folder / f"killed-{os.getpid()}"):
        os.kill(os.getpid(), signal.SIGKILL)
    if (wrong := folder / "fail").exists():
        _fail(wrong.read_text())


def _introduce(folder: Path) -> None:
    path = folder / f"worker-{os.getpid()}"
    if not path.exists():
        import ray

        node = ray.get_runtime_context().get_node_id()
        temp = folder / f"new-{os.getpid()}"
        temp.write_text(f"{torch.get_num_threads()} {node}")
        temp.rename(path)


def _fail(kind: str) -> None:
    if kind == "model":
        raise ModelError("The toy must fail, as it was told.")
    if kind == "extra":
        raise MissingExtra("The toy", "toys")
    if kind == "worker":
        raise WorkerError("The transform failed:\nTraceback\nValueError: no such grey")
    raise ZeroDivisionError("a fault of ours")


def _claim(order: Path, done: Path) -> bool:
    """Exactly one process gets an order."""
    try:
        order.rename(done)
    except FileNotFoundError:
        return False
    return True


def _wait(is_over) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + LONGEST_S
    while not is_over() and time.monotonic() < deadline:
        time.sleep(0.02)
