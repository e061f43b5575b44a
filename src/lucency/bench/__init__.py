"""How fast Lucency is on this machine, each time against a plain version in the same run.

A new benchmark is one file and one line in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lucency.bench.demo import bench_demo
from lucency.bench.reading import bench_reading
from lucency.bench.record import Bar, Benchmark, Row
from lucency.bench.screening import bench_screening
from lucency.bench.training import bench_training
from lucency.errors import ConfigError
from lucency.progress import Progress, silent
from lucency.writing import write_json, write_text

__all__ = ["BENCHMARKS", "Bar", "Benchmark", "Row", "run_benchmarks", "write_benchmark"]

BENCHMARKS: dict[str, Callable[[int, Progress], Benchmark]] = {
    "training": bench_training,
    "screening": bench_screening,
    "reading": bench_reading,
    "demo": bench_demo,
}


def run_benchmarks(
    names: Sequence[str], *, seed: int, progress: Progress = silent
) -> Iterator[Benchmark]:
    """Yield each named benchmark when it is measured; all of them if none is named.

    Raises ConfigError, before anything is measured, for a name that is none of `BENCHMARKS`.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(f"A benchmark is one of {', '.join(BENCHMARKS)}, got {name!r}.")
    for name in names or BENCHMARKS:
        yield BENCHMARKS[name](seed, progress)


def write_benchmark(folder: Path, benchmark: Benchmark) -> None:
    """Write `bench-<name>.json` and `bench-<name>.md`, each atomically. Raises CannotWrite."""
    write_json(folder / f"bench-{benchmark.name}.json", benchmark)
    write_text(folder / f"bench-{benchmark.name}.md", benchmark.as_markdown())
