"""A whole run in seconds: its settings, and the command line inside this process and beside it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lucency import cli

TOML = """\
name = "tiny"
seed = 3

[data]
source = "phantom"
images = 200
size = 64

[split]
validation = 0.15
reference = 0.25
test = 0.15

[attack]
protocol = "replace"
poison_rate = 0.15

[attack.trigger]
size_px = 4
place = "center"

[attack.label]
kind = "set"
target = "Effusion"

[input]
size = 32
crop = 0.8
mean = [0.4]
std = [0.2]

[victim]
architecture = "densenet-small"
epochs = 2
batch_size = 16
learning_rate = 3e-3
precision = "fp32"
"""
FILES = {
    "ledger.parquet",
    "predictions.parquet",
    "screening.parquet",
    "gallery.safetensors",
    "report.json",
    "report.html",
    "manifest.json",
    *(
        f"models/{model}/{name}"
        for model in ("backdoored", "clean")
        for name in ("model.toml", "weights.safetensors", "training.json")
    ),
}
"""What a finished run promises."""


@dataclass(frozen=True)
class Answer:
    """What a command said: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class TinyRun:
    """A finished run. toml: its settings; root: the --out folder; network: who was called."""

    toml: Path
    root: Path
    folder: Path
    answer: Answer
    network: tuple[str, ...]


def write_toml(folder: Path, *edits: tuple[str, str], name: str = "tiny.toml") -> Path:
    """The tiny experiment, with each (old, new) replaced, which must be there."""
    return write_edited(TOML, folder, *edits, name=name)


def write_edited(text: str, folder: Path, *edits: tuple[str, str], name: str) -> Path:
    """The text as a file of the folder, with each (old, new) replaced, which must be there."""
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def call(*arguments: str | Path) -> Answer:
    """`lucency …` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lucency", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    return Answer(code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, hash_seed: int = 1) -> subprocess.Popen[str]:
    """`lucency …` in a process of its own, one thread."""
    return subprocess.Popen(
        [sys.executable, "-c", "from lucency.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> Answer:
    """Wait for a process that `start` started."""
    out, err = process.communicate(timeout=timeout_s)
    return Answer(process.returncode, out, err)


def stop_when(process: subprocess.Popen[str], ready: Callable[[], bool], with_: signal.Signals):
    """Send a signal the moment that `ready()` holds, while the process still runs."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(with_)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder but its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
