"""How fast and how good Lucency is on this machine, each time against others in the same run.

A new benchmark is one file and one line in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lucency.bench.auditing import bench_audit
from lucency.bench.demo import bench_demo
from lucency.bench.explaining import bench_explaining, bench_explaining_on_victims
from lucency.bench.forwards import bench_forwards
from lucency.bench.poisoning import bench_poisoning
from lucency.bench.reading import bench_reading
from lucency.bench.record import Bar, Benchmark, Row
from lucency.bench.scanning import bench_scan
from lucency.bench.screen import bench_screen
from lucency.bench.screening import bench_screening
from lucency.bench.shifting import bench_shift
from lucency.bench.sweeping import bench_sweep
from lucency.bench.training import bench_training
from lucency.errors import ConfigError
from lucency.progress import Progress, silent
from lucency.records import Examine
from lucency.writing import write_json, write_text, write_via

__all__ = ["BENCHMARKS", "Bar", "Benchmark", "Row", "run_benchmarks", "write_benchmark"]

BENCHMARKS: dict[str, Callable[[int, Progress], Benchmark]] = {
    "forwards": bench_forwards,
    "training": bench_training,
    "screening": bench_screening,
    "explain": bench_explaining,
    "reading": bench_reading,
    "poisoning": bench_poisoning,
    "demo": bench_demo,
    "sweep": bench_sweep,
}

ON_VICTIMS: dict[str, Callable[..., Benchmark]] = {
    "audit": bench_audit,
    "screen": bench_screen,
    "shift": bench_shift,
    "explain": bench_explaining_on_victims,
}
"""With networks that are backdoored for them: hours, where a folder does not hold the networks yet.
They run only when named; those above only where that folder is named too."""

ON_DATA: dict[str, Callable[..., Benchmark]] = {"scan": bench_scan}
"""Of a data set; only when named."""

COMPARED = ("audit", "screen")
"""With published methods beside, which may take longer than ours."""

LONG = ("sweep",)
"""Half an hour and more: they run only when named."""

VICTIMS = Path("bench-victims")


def run_benchmarks(
    names: Sequence[str],
    *,
    seed: int,
    victims: Path | None = None,
    data: Path | None = None,
    only: Sequence[str] = (),
    compare: Sequence[str] = (),
    sizes: Sequence[int] = (128,),
    examine: Examine = "unusual",
    progress: Progress = silent,
) -> Iterator[Benchmark]:
    """Yield each named benchmark when it is measured; all of `BENCHMARKS` but the long ones if none
    is named.

    victims: the folder that keeps the backdoored networks, None = `VICTIMS` for a benchmark that
    cannot do without, and none for the others; data: ChestX-ray14 at 256 px, and for `ON_DATA` any
    data set; None = the phantom alone; only: parts of the names of the cases to measure, none given
    = all; compare: of those on which `COMPARED` try published ones too; sizes: of the networks'
    inputs, pixels; examine: which films `screen` gives the whole of T1. Raises ConfigError, before
    anything is measured, for a name that is none.
    """
    for name in names:
        if name not in (*BENCHMARKS, *ON_VICTIMS, *ON_DATA):
            known = ", ".join((*BENCHMARKS, *ON_VICTIMS, *ON_DATA))
            raise ConfigError(f"A benchmark is one of {known}, got {name!r}.")
    for name in names or [n for n in BENCHMARKS if n not in LONG]:
        if name in ON_VICTIMS and (victims is not None or name not in BENCHMARKS):
            folder = victims or VICTIMS
            chosen = {"victims": folder, "data": data, "sizes": sizes, "only": only}
            more = {"examine": examine} if name == "screen" else {}
            compared = {"compare": compare} if name in COMPARED else {}
            yield ON_VICTIMS[name](seed, progress, **chosen, **compared, **more)
        elif name in ON_DATA:
            yield ON_DATA[name](seed, progress, data=data)
        else:
            yield BENCHMARKS[name](seed, progress)


def write_benchmark(folder: Path, benchmark: Benchmark) -> None:
    """Write `bench-<name>.json` and `bench-<name>.md`, and `bench-<name>.parquet` where there are
    raw scores, each atomically. Raises CannotWrite."""
    write_json(folder / f"bench-{benchmark.name}.json", benchmark)
    write_text(folder / f"bench-{benchmark.name}.md", benchmark.as_markdown())
    if benchmark.scores is not None:
        write_via(folder / f"bench-{benchmark.name}.parquet", benchmark.scores.write_parquet)
