"""Benchmarks: their arithmetic, their table, and that each runs. How fast is not tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lucency.bench import BENCHMARKS, LONG, Benchmark, run_benchmarks, write_benchmark
from lucency.bench.demo import DemoSize, bench_demo
from lucency.bench.machine import describe_machine
from lucency.bench.poisoning import PoisoningSize, bench_poisoning
from lucency.bench.processes import Peak, descendants, watch
from lucency.bench.reading import ReadingSize, bench_reading
from lucency.bench.record import Bar, Row, at_least, at_most, row, shown, spread
from lucency.bench.screening import ScreeningSize, bench_screening
from lucency.bench.timing import interleave, rates, ratios
from lucency.bench.training import Case, TrainingSize, bench_training
from lucency.errors import ConfigError, LucencyError

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

SMALL_RUN = """
name = "small"
seed = 3

[data]
source = "phantom"
images = 150
size = 64

[attack]
poison_rate = 0.2

[attack.trigger]
size_px = 4

[attack.label]
target = "Atelectasis"

[input]
size = 32

[victim]
architecture = "densenet-small"
epochs = 1
batch_size = 16
"""


def benchmark(*rows: Row) -> Benchmark:
    return Benchmark(
        name="reading",
        title="a title",
        peer="a peer",
        seed=5,
        machine=describe_machine(),
        settings={"repeats": 3},
        rows=rows,
        notes=("a note",),
    )


def named(result: Benchmark) -> dict[str, Row]:
    return {r.name: r for r in result.rows}


# --- rows and bars ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (at_least(2.0), 2.0, True),
        (at_least(2.0), 1.99, False),
        (at_most(40.0), 40.0, True),
        (at_most(40.0), 40.1, False),
    ],
)
def test_a_bar_includes_its_own_value(bar: Bar, value: float, met: bool) -> None:
    assert row("x", value, bar=bar).met is met


def test_only_a_bar_of_the_interval_looks_at_the_interval() -> None:
    lenient = Bar(kind="at most", value=0.01, of_interval=True)
    assert row("x", 0.02, low=0.005, high=0.04, bar=lenient).met is True
    assert row("x", 0.02, low=0.012, high=0.04, bar=lenient).met is False
    assert row("x", 0.02, low=0.005, high=0.04, bar=at_most(0.01)).met is False


def test_a_row_without_a_bar_is_not_judged_and_one_without_a_value_meets_none() -> None:
    assert row("x", 1.0).met is None
    assert row("x", None, bar=at_most(3.0), reason="no /proc").met is False


def test_spread_is_median_minimum_and_maximum() -> None:
    found = spread("x", (5.0, 1.0, 2.0), "s", bar=at_most(2.0))
    assert (found.value, found.low, found.high, found.met) == (2.0, 1.0, 5.0, True)


def test_rates_and_ratios() -> None:
    assert rates(10, (2.0, 5.0)) == (5.0, 2.0)
    assert ratios((6.0, 8.0), (3.0, 2.0)) == (2.0, 4.0)
    with pytest.raises(ValueError, match="shorter"):
        ratios((1.0, 2.0), (1.0,))


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    steps: list[int] = []
    seconds = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, steps.append
    )
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert sum(steps) == 6
    assert [len(seconds[name]) for name in "ab"] == [2, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.0, "2"), (1.23456, "1.235"), (12345.6, "12346"), (0.000123, "0.000123")],
)
def test_numbers_are_shown_short_and_without_an_exponent(value: float, text: str) -> None:
    assert shown(value) == text


# --- the table and the files --------------------------------------------------------------------


def test_the_table_shows_value_range_bar_and_verdict() -> None:
    text = benchmark(
        row("fast", 2.5, "×", low=2.0, high=3.0, bar=at_least(2.0)),
        row("slow", 0.5, "×", bar=at_least(2.0)),
        row("plain", 7.0, "s"),
        row("absent", None, reason="no /proc"),
    ).as_markdown()
    assert "| fast | 2.5 | × | 2–3 | ≥ 2 | met |" in text
    assert "| slow | 0.5 | × |  | ≥ 2 | **missed** |" in text
    assert "| plain | 7 | s |  |  |  |" in text
    assert "| absent | none: no /proc |" in text
    for part in ("a title", "Against: a peer", "- a note", "seed 5", describe_machine().cpu):
        assert part in text


def test_the_files_hold_the_record_and_the_table(tmp_path: Path) -> None:
    result = benchmark(row("fast", 2.5, "×", low=2.0, high=3.0, bar=at_least(2.0)))
    write_benchmark(tmp_path / "new", result)
    stored = (tmp_path / "new" / "bench-reading.json").read_text(encoding="utf-8")
    assert json.loads(stored)["schema"] == "lucency/bench/1"
    assert Benchmark.model_validate_json(stored) == result
    table = tmp_path / "new" / "bench-reading.md"
    assert table.read_text(encoding="utf-8") == result.as_markdown()


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="training, screening, explain, reading, poisoning, demo"):
        next(run_benchmarks(["reading", "speed"], seed=0))


def test_the_table_of_benchmarks() -> None:
    quick = ["forwards", "training", "screening", "explain", "reading", "poisoning", "demo"]
    assert [name for name in BENCHMARKS if name not in LONG] == quick


def test_the_machine_is_described_in_one_line() -> None:
    machine = describe_machine()
    assert machine.processors >= 1
    assert "\n" not in str(machine)
    assert machine.torch in str(machine)


# --- memory of a process tree -------------------------------------------------------------------

CHILD = "import time; block = bytearray(80 * 2**20); print('ready', flush=True); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@LINUX
def test_memory_counts_the_children() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            tree = descendants(process.pid)
            peak = Peak()
            peak.sample(process.pid)
        finally:
            for pid in reversed(tree):
                os.kill(pid, 9)
    assert len(tree) == peak.processes == 2
    assert peak.rss > peak.largest > 80 * 2**20
    assert peak.rss >= peak.pss > 80 * 2**20


@LINUX
def test_the_largest_process_does_not_inherit_our_own_peak() -> None:
    ours = bytearray(300 * 2**20)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"]) as process:
        seconds, peak = watch(process)
    assert len(ours) > 0
    assert 0.5 <= seconds < 30
    assert 0 < peak.largest < 100 * 2**20


@LINUX
def test_a_process_that_has_ended_is_no_fault() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    peak = Peak()
    peak.sample(process.pid)
    assert peak.rss == 0


# --- each benchmark, quickly --------------------------------------------------------------------


def test_training_runs() -> None:
    cases = (
        Case(architecture="densenet-small", size=32, channels=1, batch_size=4, steps=2),
        Case(
            architecture="densenet-small", size=32, channels=3, batch_size=4, steps=1, judged=False
        ),
    )
    rows = bench_training(1, size=TrainingSize(cases=cases, repeats=2)).rows
    assert len(rows) == 6
    assert rows[2].bar is not None
    assert rows[5].bar is None
    assert all(r.value is not None and r.value > 0 for r in rows)


def test_screening_runs_and_counts_an_image() -> None:
    size = ScreeningSize(
        architecture="densenet-small", size=32, images=3, reference=8, repeats=1, folders=(2,)
    )
    rows = named(bench_screening(1, size=size))
    counted = rows["forward-pass equivalents, a backward counted as two"]
    forwards, backwards = rows["forward passes"].value, rows["backward passes"].value
    assert forwards is not None
    assert backwards is not None
    # A look takes one backward; a film that is examined, three more.
    assert 1 <= backwards <= 4
    assert counted.value == pytest.approx(forwards + 2 * backwards)
    assert counted.bar == at_most(12.0)
    memory = rows["lucency screen, 2 films: peak memory"]
    assert memory.value is not None
    assert 0.05 < memory.value < 20
    assert memory.bar == at_most(2.0)


def test_reading_runs_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = named(bench_reading(1, size=ReadingSize(images=3, native=256, repeats=1)))
    assert rows["ours ÷ Pillow"].bar == at_least(0.9)
    assert list(tmp_path.iterdir()) == []


def test_poisoning_judges_the_ledger_and_every_stamp() -> None:
    size = PoisoningSize(
        images=100, films=1, native=768, batch_size=2, steps=1, rate=0.5, epochs=2, repeats=1
    )
    rows = named(bench_poisoning(1, size=size))
    ledger = "ledger of 100 of 100 images"
    assert rows[f"{ledger}: draw, label, plan"].bar == at_most(5.0)
    memory = rows[f"{ledger}: peak memory"]
    assert memory.bar == at_most(500.0)
    assert memory.value is not None
    assert 0.001 < memory.value < 50
    trained = rows["training DenseNet-121 at 224 px, one epoch"].value
    added, share = rows["warp: stamping"].value, rows["warp: share of training"]
    assert trained is not None
    assert added is not None
    assert share.value == pytest.approx(100 * 0.5 * added / (2 * trained))
    assert share.bar == at_most(5.0)


def test_the_demo_benchmark_runs_an_experiment(tmp_path: Path) -> None:
    experiment = tmp_path / "small.toml"
    experiment.write_text(SMALL_RUN, encoding="utf-8")
    start = time.perf_counter()
    rows = named(bench_demo(1, size=DemoSize(experiment=experiment)))
    wall = rows["wall time"].value
    assert wall is not None
    assert 0 < wall <= time.perf_counter() - start
    assert rows["wall time"].bar == at_most(150.0)
    assert rows["detection AUROC, all triggered films"].bar == at_least(0.98)
    assert rows["flagged: clean films, clean model"].bar is not None
    assert any(name.startswith("of which training") for name in rows)


def test_a_demo_that_fails_says_why() -> None:
    # An option that does not exist fails before torch is imported, in a tenth of the time.
    with pytest.raises(LucencyError, match=r"exit code 2: .*--no-such-option"):
        bench_demo(1, size=DemoSize(experiment=Path("--no-such-option")))
