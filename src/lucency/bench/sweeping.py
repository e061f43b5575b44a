"""A sweep of 24 runs: by one worker, by two, by two nodes of a Ray cluster; and killed again and
again. Whatever happens to it, it must end with the same bytes."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from lucency.bench.machine import describe_machine
from lucency.bench.processes import memory_row, run_lucency
from lucency.bench.record import Benchmark, Row, at_least, at_most, row
from lucency.errors import IntegrityError, LucencyError
from lucency.manifest import CHECKPOINT, LOCK, MANIFEST
from lucency.progress import Progress, silent
from lucency.records import Record
from lucency.victims.checkpoint import load_checkpoint

NAME = "sweep"
NO_RAY = "Ray is not installed, or cannot start here"
_LOOK_S = 0.2
"""Between two looks at the checkpoints; an epoch takes longer."""


class SweepSize(Record):
    """settings: a SWEEP.toml in place of ours. kills: how often it is killed, each time after a
    random number of seconds between the two of `between_s`. ray: whether a cluster is tried."""

    settings: Path | None = None
    kills: int = 20
    ray: bool = True
    between_s: tuple[float, float] = (6.0, 22.0)


FULL = SweepSize()


def bench_sweep(seed: int, progress: Progress = silent, size: SweepSize = FULL) -> Benchmark:
    """Run the sweep in processes of its own, into temporary folders."""
    machine = describe_machine()
    own = resources.files("lucency") / "bench" / "sweep.toml"
    with (
        tempfile.TemporaryDirectory(prefix="lucency-bench-") as name,
        resources.as_file(own) as ours,
    ):
        folder, toml = Path(name), size.settings or ours
        with progress("Benchmark: sweep", 5) as advance:
            one, _, answer = _sweep(toml, folder / "1" / "sweep", "--workers", "1")
            advance(1)
            two, peak, _ = _sweep(toml, folder / "2" / "sweep", "--workers", "2")
            advance(1)
            expected = contents(folder / "1" / "sweep")
            differ = _differing(contents(folder / "2" / "sweep"), expected)
            killed = _killed(toml, folder / "3" / "sweep", expected, size, random.Random(seed))
            advance(1)
            on_ray = _on_ray(toml, folder, expected, two, advance) if size.ray else []
    return Benchmark(
        name=NAME,
        title=f"{answer['n_runs']} runs and their {answer['n_clean_models']} clean models",
        peer="the same runs by one worker, one after the other",
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=(
            row("one worker", one, "s"),
            row("two workers", two, "s"),
            row("two workers, faster by", one / two, "×", bar=at_least(1.7)),
            memory_row("peak memory of all processes, two workers", peak.rss),
            row("two workers: files that differ from one worker's", differ, bar=at_most(0)),
            *killed,
            *on_ray,
        ),
        notes=(
            "Seconds from the start of the command to its end. Files are compared byte by byte, "
            "manifests included.",
            "A checkpoint is written after every epoch, and read here as it appears: one without "
            "an epoch more than before tells of an epoch that was done again. The epoch in which "
            "a worker was killed is not finished.",
        ),
    )  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file but the locks."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def _sweep(toml: Path, out: Path, *options: str) -> Any:
    out.parent.mkdir(exist_ok=True)
    return run_lucency(["sweep", str(toml), "--out", str(out), *options], out.parent)


def _killed(
    toml: Path, out: Path, expected: dict[str, str], size: SweepSize, draw: random.Random
) -> list[Row]:
    """Killed with its workers left to notice for themselves, and started again, until it ends."""
    start = "from lucency.cli import main; main()"
    command = [sys.executable, "-c", start, "sweep", str(toml), "--out", str(out), "--workers", "2"]
    kills = redone = repeated = 0
    trained: dict[Path, tuple[int, int]] = {}
    while kills < size.kills:
        finished = {p: p.stat().st_mtime_ns for p in out.glob(f"*/*/{MANIFEST}")}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:  # noqa: S603 - our own interpreter and command
            end = time.monotonic() + draw.uniform(*size.between_s)
            while run.poll() is None and time.monotonic() < end:
                repeated += repeated_epochs(out, trained)
                time.sleep(_LOOK_S)
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                kills += 1
            ended = run.wait() == 0
        redone += sum(p.stat().st_mtime_ns != then for p, then in finished.items())
        if ended:
            # Too quick for so many kills: what it has so far must be right, and it begins anew.
            if contents(out) != expected:
                break
            shutil.rmtree(out)
            trained = {}
    if not out.exists() or contents(out) != expected:
        _sweep(toml, out, "--workers", "2")
    differ = _differing(contents(out), expected)
    return [
        row("kill -9 at random moments", kills, "times"),
        row("files that differ after them", differ, bar=at_most(0)),
        row("finished runs that were done again", redone, bar=at_most(0)),
        row("finished epochs that were done again", repeated, bar=at_most(0)),
    ]


def repeated_epochs(out: Path, trained: dict[Path, tuple[int, int]]) -> int:
    """How many checkpoints were written since the last look without an epoch more in them.

    trained: when each was written, and its epochs; brought up to date.
    """
    found = 0
    for path in out.glob(f"*/*/{CHECKPOINT}/*"):
        before, epochs_before = trained.get(path, (0, 0))
        try:
            written = path.stat().st_mtime_ns
            if written == before:
                continue
            epochs = len(load_checkpoint(path).history)
        except (IntegrityError, OSError):  # deleted meanwhile, since its training is done
            continue
        found += epochs <= epochs_before
        trained[path] = written, epochs
    return found


def _differing(ours: dict[str, str], theirs: dict[str, str]) -> int:
    return sum(ours.get(name) != theirs.get(name) for name in ours.keys() | theirs.keys())


def _on_ray(
    toml: Path, folder: Path, expected: dict[str, str], two: float, advance: Any
) -> list[Row]:
    """On two nodes of this machine, and once more with one of them lost in the middle."""
    rows = []
    try:
        with _two_nodes() as cluster:
            out = folder / "4" / "sweep"
            seconds, _, _ = _sweep(toml, out, "--ray", cluster.address)
            rows += [
                row("Ray, two nodes", seconds, "s"),
                row("Ray ÷ two workers", seconds / two, "×", bar=at_most(1.15)),
                row("Ray: files that differ", _differing(contents(out), expected), bar=at_most(0)),
            ]
            advance(1)
            (node,) = cluster.worker_nodes
            timer = threading.Timer(
                seconds / 2, lambda: cluster.remove_node(node, allow_graceful=False)
            )
            timer.start()
            out = folder / "5" / "sweep"
            seconds, _, _ = _sweep(toml, out, "--ray", cluster.address)
            timer.join()
            rows += [
                row("Ray, one node lost in the middle", seconds, "s"),
                row(
                    "the same: files that differ",
                    _differing(contents(out), expected),
                    bar=at_most(0),
                ),
            ]
            advance(1)
    except (ImportError, LucencyError, OSError) as error:
        rows.append(row("Ray, two nodes", None, "s", reason=f"{NO_RAY}: {error}"))
    return rows  # fmt: skip


@contextmanager
def _two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # Short, since the paths of sockets may not be long.
    temp = tempfile.mkdtemp(prefix="lucency-ray-")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
    cluster = Cluster(
        initialize_head=True, head_node_args={**small, "temp_dir": temp, "_system_config": quick}
    )
    try:
        cluster.add_node(**small)
        cluster.wait_for_nodes()
        time.sleep(1)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(temp, ignore_errors=True)
