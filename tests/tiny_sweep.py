"""A whole sweep in seconds, and its jobs done one after the other in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lucency.config import load_toml
from lucency.errors import LucencyError
from lucency.sweep import SweepSettings, sweep
from lucency.sweep import jobs as jobs_module
from lucency.sweep.jobs import Job
from lucency.sweep.pool import Ended
from tiny_run import write_edited

TOML = """\
name = "tiny sweep"
seeds = [3, 4]

[experiment]
name = "tiny"

[experiment.data]
source = "phantom"
images = 160
size = 64

[experiment.split]
validation = 0.2
reference = 0.1
test = 0.3

[experiment.attack]
protocol = "replace"

[experiment.attack.trigger]
place = "center"
size_px = 4

[experiment.attack.label]
kind = "set"
target = "Effusion"

[experiment.input]
size = 32
crop = 0.8
mean = [0.4]
std = [0.2]

[experiment.victim]
architecture = "densenet-small"
epochs = 2
batch_size = 16
learning_rate = 3e-3
precision = "fp32"

[grid]
"attack.poison_rate" = [0.1, 0.3]
"""
TABLES = {"runs.parquet", "success.parquet", "findings.parquet", "points.parquet"}
RECORDS = {"report.json", "report.html", "points.md", "manifest.json"}


class Here:
    """A pool of this process alone. done: the jobs that were given to it, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self.done: list[Job] = []

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def next(self) -> Ended:
        job = self._waiting.popleft()
        self.done.append(job)
        try:
            jobs_module.carry_out(job)
        except LucencyError as error:
            return Ended(job, str(error))
        return Ended(job, None)


def here(pool: Here) -> Callable[[], Iterator[Here]]:
    """What `sweep` asks for."""

    @contextmanager
    def opened() -> Iterator[Here]:
        yield pool

    return opened


def write_toml(folder: Path, *edits: tuple[str, str], name: str = "tiny.toml") -> Path:
    """The tiny sweep, with each (old, new) replaced, which must be there."""
    return write_edited(TOML, folder, *edits, name=name)


def run_here(toml: Path, out: Path) -> Here:
    """The sweep, in this process; the pool says what it did."""
    pool = Here()
    sweep(
        load_toml(toml, SweepSettings),
        toml.parent,
        out,
        here(pool),
        file=toml.name,
        sweep_toml=toml.read_text(encoding="utf-8"),
        command=f"lucency sweep {toml.name}",
    )
    return pool


class TinySweep(NamedTuple):
    """toml: its settings; folder: the finished sweep; pool: what was done for it."""

    toml: Path
    folder: Path
    pool: Here
