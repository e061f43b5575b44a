"""The demonstration: how long it takes, how much memory, and whether it shows what it should."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lucency.bench.machine import describe_machine
from lucency.bench.processes import Peak, memory_row, run_lucency
from lucency.bench.record import Bar, Benchmark, Row, at_least, at_most, row
from lucency.detect.images.screen import COMPOSITE
from lucency.manifest import read_json, read_manifest
from lucency.progress import Progress, silent
from lucency.records import DetectionScore, Estimate, Rate, Record
from lucency.report.record import RunReport

NAME = "demo"
PEER = "the bars alone; there is no other tool that does this"
MAX_SECONDS = 150.0
MAX_GIB = 3.0
POINT = "specificity-0.95"


class DemoSize(Record):
    """experiment: an EXPERIMENT.toml that is run in place of the demonstration."""

    experiment: Path | None = None


FULL = DemoSize()


def bench_demo(seed: int, progress: Progress = silent, size: DemoSize = FULL) -> Benchmark:
    """Run `lucency demo` once in a process of its own, into a temporary folder."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="lucency-bench-") as name:
        with progress("Benchmark: demo", 1) as advance:
            seconds, peak, folder = _run(Path(name), seed, size)
            advance(1)
        report = read_json(folder / "report.json", RunReport)
        stages = read_manifest(folder).timings
    return Benchmark(
        name=NAME,
        title="`lucency demo`, from start to exit" if size.experiment is None else report.name,
        peer=PEER,
        seed=report.seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=(
            row("wall time", seconds, "s", bar=at_most(MAX_SECONDS)),
            *_memory(peak),
            *quality(report),
            *(row(f"of which {stage}", taken, "s") for stage, taken in stages.items()),
        ),
        notes=(
            f"One run. Memory: {peak.samples} samples of up to {peak.processes} processes, every "
            "0.1 s (proportional: every second); the bar stands at the sum of resident sizes, "
            "which counts shared pages more than once.",
            "min–max of a share or an AUROC is its 95 % interval.",
        ),
    )


def quality(report: RunReport) -> list[Row]:
    """What the run measured, beside the bars of a demonstration that works."""
    point = next(a for a in report.attack_success if a.operating_point == POINT)
    scores = {
        d.over: d for d in report.detection if d.detector == COMPOSITE and d.model == "backdoored"
    }
    of_clean = {c.images: c.flagged for c in report.cells if c.model == "clean"}
    alpha = Bar(kind="at most", value=report.alpha, of_interval=True)
    return [
        _difference(report.macro_difference),
        _judged("attack success at 95 % specificity", point.backdoored, at_least(0.95)),
        *_detection(scores["all"], judged=True),
        *(_detection(scores["successful"], judged=False) if "successful" in scores else ()),
        _judged("flagged: clean films, clean model", of_clean["clean"], alpha),
        _judged("flagged: triggered films, clean model", of_clean["triggered"], alpha),
    ]


def _run(folder: Path, seed: int, size: DemoSize) -> tuple[float, Peak, Path]:
    what = ["demo", "--seed", str(seed)]
    if size.experiment is not None:
        what = ["run", str(size.experiment)]
    seconds, peak, answer = run_lucency([*what, "--out", str(folder / "runs")], folder)
    return seconds, peak, Path(answer["folder"])


def _memory(peak: Peak) -> list[Row]:
    return [
        memory_row("peak memory of all processes, resident", peak.rss, at_most(MAX_GIB)),
        memory_row("peak memory of all processes, proportional", peak.pss),
        memory_row("peak memory of the largest process", peak.largest),
    ]


def _difference(difference: Estimate) -> Row:
    """The macro AUROC's difference; the bar is on its absolute value."""
    value = None if difference.value is None else abs(difference.value)
    return row(
        "clean macro AUROC, |backdoored − clean model|",
        value,
        bar=at_most(0.02),
        reason=difference.reason,
    )


def _detection(score: DetectionScore, *, judged: bool) -> list[Row]:
    over = "all triggered films" if score.over == "all" else "films of successful attacks"

    def one(name: str, value: Estimate | Rate, bar: float) -> Row:
        return _judged(f"{name}, {over}", value, at_least(bar) if judged else None)

    return [
        one("detection AUROC", score.auroc, 0.98),
        one("found at 1 % false alarms", score.tpr_at_fpr_1, 0.90),
        one("region on the trigger", score.hit_rate, 0.90),
    ]


def _judged(name: str, value: Estimate | Rate, bar: Bar | None) -> Row:
    return row(name, value.value, low=value.low, high=value.high, bar=bar, reason=value.reason)
