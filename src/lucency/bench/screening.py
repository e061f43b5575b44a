"""Screening: what the verdict over all findings costs an image, in passes, seconds and memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from pydantic import Field

from lucency.bench.films import phantom_inputs
from lucency.bench.machine import describe_machine
from lucency.bench.processes import memory_row, run_lucency
from lucency.bench.record import Benchmark, Row, at_least, at_most, row, spread
from lucency.bench.timing import interleave, ratios
from lucency.data.phantom import PREVALENCE
from lucency.data.preprocess import InputContract
from lucency.detect.images.screen import fit_screener, screen
from lucency.progress import Progress, silent
from lucency.records import NetworkInputs, Record
from lucency.victims.architectures import build, channels_last
from lucency.victims.card import save_victim
from lucency.victims.engine import engine_name, with_engine
from lucency.victims.victim import Passes, Victim, default_device, has_fast_bf16, predict

NAME = "screening"
PEER = "one forward pass of the same network over the same films (`predict`)"
LIMIT = 12.0
WITH_AMX = 8.0
MAX_GIB = 2.0


class ScreeningSize(Record):
    """images: clean films that are screened, `repeats` times; reference: those that calibrate.
    folders: how many films `lucency screen` is given, in a process of its own each."""

    architecture: str = "densenet121"
    size: int = 224
    images: int = Field(default=64, ge=1)
    reference: int = Field(default=60, ge=8)
    repeats: int = Field(default=3, ge=1)
    folders: tuple[int, ...] = (64, 256)


FULL = ScreeningSize()


def bench_screening(
    seed: int, progress: Progress = silent, size: ScreeningSize = FULL
) -> Benchmark:
    """Count the passes on clean traffic, time them, and watch the memory of the whole command.
    Bars: 12 forward passes an image, 2 GiB, and with AMX 8 images a second."""
    machine = describe_machine()
    contract = InputContract(size=size.size)
    films, _ = phantom_inputs(size.images + size.reference, contract, seed)
    suspects, reference = films[: size.images], films[size.images :]
    plain = _random_victim(size, contract, seed)
    victim = with_engine(plain, "auto")
    strangers = [str(i) for i in range(len(reference))]
    screener = fit_screener(victim, reference, strangers, seed=seed, progress=progress)
    victim.passes.forwards = victim.passes.backwards = 0
    # The same network with a count of its own, so that `victim` counts screening alone.
    peer = replace(victim, passes=Passes())
    with progress("Benchmark: screening", 2 * (size.repeats + 1)) as advance:
        seconds = interleave(
            {
                "screen": lambda: screen(screener, suspects),
                "forward": lambda: predict(peer, suspects),
            },
            size.repeats,
            advance,
        )
    n, spent = len(suspects), victim.passes
    screened = n * (size.repeats + 1)
    each = {name: tuple(s / n for s in taken) for name, taken in seconds.items()}
    return Benchmark(
        name=NAME,
        title=(
            f"the staged verdict over {len(PREVALENCE)} findings, {size.architecture}, "
            f"{size.size} px"
        ),
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=(
            row("forward passes", spent.forwards / screened, "an image"),
            row("backward passes", spent.backwards / screened, "an image"),
            row(
                "forward-pass equivalents, a backward counted as two",
                spent.equivalents / screened,
                "an image",
                bar=at_most(LIMIT),
            ),
            spread(
                "forward-pass equivalents, by time: screening ÷ one forward",
                ratios(each["screen"], each["forward"]),
                "an image",
            ),
            spread(
                f"screening by {engine_name(victim)}",
                [1 / s for s in each["screen"]],
                "images/s",
                bar=at_least(WITH_AMX) if machine.amx else None,
            ),
            spread("screening", each["screen"], "s an image"),
            spread("one forward pass", each["forward"], "s an image"),
            *_commands(plain, size, reference, seed, progress),
        ),
        notes=(
            f"{n} clean phantom films, random weights, "
            f"{'bf16' if victim.bf16 else 'float32'}; the number of passes depends on neither.",
            "The command's images a second are from reading the first image to the last verdict, "
            "after calibration; its memory is that of all its processes, at its highest.",
        ),
    )


def _commands(
    victim: Victim, size: ScreeningSize, reference: NetworkInputs, seed: int, progress: Progress
) -> list[Row]:
    """`lucency screen` on folders of films: images a second, and peak memory."""
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="lucency-bench-") as name,
        progress("Benchmark: lucency screen", len(size.folders)) as advance,
    ):
        folder = Path(name)
        save_victim(folder / "model", victim, size.architecture, "Random weights.")
        _write(folder / "reference", reference)
        for n in size.folders:
            films, _ = phantom_inputs(n, victim.contract, seed + n)
            suspects, out = folder / f"{n} films", folder / f"out {n}"
            _write(suspects, films)
            where = ["--model", folder / "model", "--reference", folder / "reference"]
            arguments = ["screen", suspects, *where, "--out", out]
            _, peak, answer = run_lucency([str(a) for a in arguments], folder)
            title = f"lucency screen, {n} films"
            rows.append(row(title, answer["cost"]["images_per_second"], "images/s"))
            rows.append(memory_row(f"{title}: peak memory", peak.rss, at_most(MAX_GIB)))
            advance(1)
    return rows


def _write(folder: Path, films: NetworkInputs) -> None:
    folder.mkdir()
    for i, film in enumerate(films):
        Image.fromarray(film).save(folder / f"{i:05d}.png")


def _random_victim(size: ScreeningSize, contract: InputContract, seed: int) -> Victim:
    device = default_device()
    findings = tuple(PREVALENCE)
    network = build(size.architecture, contract.channels, len(findings), seed).to(device)
    return Victim(channels_last(network).eval(), contract, findings, has_fast_bf16(device))
