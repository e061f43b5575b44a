"""Every step that a sweep takes on the file system as a crash point.

Training is left out, so that hundreds of sweeps take seconds: a job writes what a real one wrote,
and trusts every file that exists, which is what the writer promises. Folders, manifests, rows and
record are the sweep's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import lucency.writing
from crash_points import killed_at
from lucency.errors import LucencyError
from lucency.experiment.films import load
from lucency.runs import RunFolder
from lucency.sweep import jobs, tables
from lucency.sweep import plan as plan_module
from lucency.sweep import run as run_module
from lucency.sweep.jobs import RECORD, Job
from lucency.writing import TEMP_PREFIX
from tiny_run import contents
from tiny_sweep import run_here, write_toml

STRIDE = int(os.environ.get("LUCENCY_CRASH_STRIDE", "5"))
"""Of the crash points, every so many: forking a process of a gigabyte takes its time. 1 before a
release."""


@pytest.fixture
def quick(tiny_sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that copy what the real ones wrote, after two epochs' checkpoints."""
    folder = tiny_sweep.folder

    def write(path: Path, data: bytes) -> None:
        if not path.exists():
            lucency.writing.write_bytes(path, data)

    def checkpoints(owned: RunFolder) -> None:
        for epoch in (1, 2):
            write(owned.checkpoint / f"{epoch}.bin", bytes([epoch]) * 100)

    def train_clean(settings, films, owned: RunFolder, progress) -> None:
        checkpoints(owned)
        write(owned.path("models/clean/weights.bin"), b"weights")

    def attack(job: Job, films, owned: RunFolder, clean: Path) -> None:
        checkpoints(owned)
        assert (clean / "models/clean/weights.bin").read_bytes() == b"weights"
        for name in ("ledger.parquet", "predictions.parquet", RECORD):
            write(owned.path(name), (folder / "runs" / owned.folder.name / name).read_bytes())

    monkeypatch.setattr(jobs, "_clean_films", lambda settings: None)
    monkeypatch.setattr(jobs, "train_clean", train_clean)
    monkeypatch.setattr(jobs, "_attack", attack)
    # Each takes a good part of a second, and is tested elsewhere.
    table = load(tiny_sweep.pool.done[0].settings)
    monkeypatch.setattr(plan_module, "load", lambda settings: table)
    monkeypatch.setattr(plan_module, "check_training", lambda settings, radiographs: None)
    monkeypatch.setattr(run_module, "render_sweep", lambda folder: f"<p>{folder.name}</p>")
    # Polars' threads do not live on in a forked process.
    monkeypatch.setattr(tables, "_frame", Table)
    # A killed process loses nothing from the page cache.
    monkeypatch.setattr(os, "fsync", lambda fd: None)


class Table:
    """Rows, and what stands for a table of them."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def write_parquet(self, path: Path) -> None:
        path.write_text(json.dumps(self.rows))


def naive_write_via(path: Path, writer: Callable[[Path], None]) -> None:
    """What everybody writes first; a mutant that the test must kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
    writer(path)


def _crash_everywhere(tiny_sweep, tmp_path: Path, stride: int) -> tuple[int, int]:
    """(crash points, those after which the resumed sweep is not as if nothing had happened)."""
    name = tiny_sweep.folder.name
    toml = write_toml(tmp_path, ("seeds = [3, 4]", "seeds = [3]"))
    run_here(toml, tmp_path / "whole" / name)
    expected = contents(tmp_path / "whole" / name)
    points = bad = 0
    for n in range(1, 10_000, stride):
        out = tmp_path / str(n) / name
        if not killed_at(n, lambda out=out: run_here(toml, out)):  # type: ignore[misc]
            assert contents(out) == expected
            return points, bad
        points += 1
        finished = {p: p.stat().st_mtime_ns for p in out.glob("*/*/manifest.json")}
        try:
            run_here(toml, out)
        except (LucencyError, AssertionError):  # it tripped over a torn file
            bad += 1
            shutil.rmtree(tmp_path / str(n))
            continue
        bad += contents(out) != expected
        if not bad:
            assert {p: p.stat().st_mtime_ns for p in finished} == finished
            assert not [p for p in out.rglob("*") if p.name.startswith(TEMP_PREFIX)]
        shutil.rmtree(tmp_path / str(n))
    raise AssertionError("it never got through")


@pytest.mark.usefixtures("quick")
def test_every_crash_point(tiny_sweep, tmp_path: Path) -> None:
    points, bad = _crash_everywhere(tiny_sweep, tmp_path, STRIDE)
    assert points > 200 / STRIDE
    assert bad == 0


@pytest.mark.usefixtures("quick")
def test_the_test_has_teeth(tiny_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a naive writer a quarter of the crash points and more must end badly."""
    monkeypatch.setattr(lucency.writing, "write_via", naive_write_via)
    monkeypatch.setattr(run_module, "write_via", naive_write_via)
    points, bad = _crash_everywhere(tiny_sweep, tmp_path, stride=6)
    assert bad >= points / 4
