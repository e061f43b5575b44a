"""Screening: what the verdict over all findings costs an image, in passes and in seconds."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from lucency.bench.films import phantom_inputs
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark, at_most, row, spread
from lucency.bench.timing import interleave, ratios
from lucency.data.phantom import PREVALENCE
from lucency.data.preprocess import InputContract
from lucency.detect.images.screen import fit_screener, screen
from lucency.progress import Progress, silent
from lucency.records import Record
from lucency.victims.architectures import build, channels_last
from lucency.victims.victim import Passes, Victim, default_device, has_fast_bf16, predict

NAME = "screening"
PEER = "one forward pass of the same network over the same films (`predict`)"
LIMIT = 12.0


class ScreeningSize(Record):
    """images: clean films that are screened, `repeats` times; reference: those that calibrate."""

    architecture: str = "densenet121"
    size: int = 224
    images: int = Field(default=64, ge=1)
    reference: int = Field(default=60, ge=8)
    repeats: int = Field(default=3, ge=1)


FULL = ScreeningSize()


def bench_screening(
    seed: int, progress: Progress = silent, size: ScreeningSize = FULL
) -> Benchmark:
    """Count the passes on clean traffic, and time them. Bar: 12 forward passes an image."""
    machine = describe_machine()
    contract = InputContract(size=size.size)
    films, _ = phantom_inputs(size.images + size.reference, contract, seed)
    suspects, reference = films[: size.images], films[size.images :]
    victim = _random_victim(size, contract, seed)
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
            spread("screening", each["screen"], "s an image"),
            spread("one forward pass", each["forward"], "s an image"),
        ),
        notes=(
            f"{n} clean phantom films, random weights, "
            f"{'bf16' if victim.bf16 else 'float32'}; the number of passes depends on neither.",
        ),
    )


def _random_victim(size: ScreeningSize, contract: InputContract, seed: int) -> Victim:
    device = default_device()
    findings = tuple(PREVALENCE)
    network = build(size.architecture, contract.channels, len(findings), seed).to(device)
    return Victim(channels_last(network).eval(), contract, findings, has_fast_bf16(device))
