"""Poisoning: how long drawing and planning a ledger takes, and what stamping adds to training."""

from __future__ import annotations

import tracemalloc
from functools import partial
from statistics import median
from typing import get_args

import numpy as np
from pydantic import Field

from lucency.attacks import CofindingsTrigger, PatchTrigger, Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import (
    AttackSettings,
    PoisonLedger,
    Stamp,
    draw_ledger,
    plain,
    stamp,
    trigger_every,
)
from lucency.bench.films import phantom_inputs, phantom_training_set
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark, Row, at_most, row, spread
from lucency.bench.timing import Job, interleave, seconds_of
from lucency.data.phantom import PREVALENCE, PhantomSource
from lucency.data.preprocess import InputContract
from lucency.progress import Progress, silent
from lucency.records import Image, NetworkInputs, Radiographs, Record, Transform
from lucency.victims.train import TrainingLoop, VictimSettings

NAME = "poisoning"
PEER = "reading the same films without a trigger, and training on them"
MAX_SECONDS, MAX_MB, MAX_SHARE = 5.0, 500.0, 5.0
CONTRACT = InputContract(size=224, crop=0.6)
LABEL = LabelEdit(target="Atelectasis")
KINDS = get_args(get_args(Trigger)[0])
TRIGGERS: tuple[Trigger, ...] = tuple(kind() for kind in KINDS if kind is not CofindingsTrigger)
"""One of each that changes pixels, with its defaults."""


class PoisoningSize(Record):
    """images: of the data set whose ledger is drawn. films: stamped by each trigger, each `native`
    px square. batch_size, steps: of DenseNet-121 at 224 px, which is trained beside. rate, epochs:
    of the run that the shares are about."""

    images: int = Field(default=100_000, ge=100, le=200_000)
    films: int = Field(default=8, ge=1)
    native: int = Field(default=1024, ge=768, le=1024)
    batch_size: int = Field(default=16, ge=2)
    steps: int = Field(default=2, ge=1)
    rate: float = Field(default=0.2, gt=0, le=1)
    epochs: int = Field(default=10, ge=1)
    repeats: int = Field(default=5, ge=1)


FULL = PoisoningSize()


def bench_poisoning(
    seed: int, progress: Progress = silent, size: PoisoningSize = FULL
) -> Benchmark:
    """Bars: 5 s and 500 MB for a ledger of 100 000 images; 5 % of training time for stamping."""
    machine = describe_machine()
    jobs = 2 * len(TRIGGERS) + 1
    with progress("Benchmark: poisoning", jobs * (size.repeats + 1) + 1) as advance:
        rows = _ledger(size, seed)
        advance(1)
        films, _ = phantom_inputs(size.films, InputContract(size=size.native), seed)
        loop = _loop(size, seed)
        epochs = iter(range(size.repeats + 1))
        steps: dict[str, Job] = {
            "training": lambda: loop.train_epoch(next(epochs), lambda steps: None)
        }
        for i, trigger in enumerate(TRIGGERS):
            transform = _stamp(trigger, size.films, seed)
            steps[f"{i} with"] = partial(_read, films, transform)
            steps[f"{i} without"] = partial(_read, films, plain(CONTRACT))
        seconds = interleave(steps, size.repeats, advance)
    trained = [1000 * s / (size.batch_size * size.steps) for s in seconds["training"]]
    rows.append(spread("training DenseNet-121 at 224 px, one epoch", trained, "ms a film"))
    for i, trigger in enumerate(TRIGGERS):
        pairs = zip(seconds[f"{i} with"], seconds[f"{i} without"], strict=True)
        added = [1000 * (ours - bare) / size.films for ours, bare in pairs]
        rows += _stamping(trigger, added, median(trained), size)
    return Benchmark(
        name=NAME,
        title=f"a ledger of {size.images:,} images; stamping films of {size.native}² px",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=tuple(rows),
        notes=(
            "Memory: the peak of what Python and NumPy allocate meanwhile, measured in a second "
            "call; the data set's own table is there before and is not counted.",
            "A run stamps every poisoned film once, while it is read, and trains on it in every "
            f"epoch. Shares are of a run of {size.epochs} epochs at poison rate {size.rate:g}: "
            "stamping ÷ training. If films were stamped anew in every epoch, they would be "
            f"{size.epochs} times as large.",
            "One thread stamps; a run shares films among its decoding processes.",
        ),
    )


def _ledger(size: PoisoningSize, seed: int) -> list[Row]:
    radiographs = PhantomSource(images=size.images, size=64).load(seed)
    seconds = [seconds_of(lambda: _plan(radiographs, seed)) for _ in range(size.repeats)]
    tracemalloc.start()
    ledger = _plan(radiographs, seed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table = [seconds_of(lambda: ledger.table(radiographs)) for _ in range(size.repeats)]
    what = f"ledger of {len(ledger):,} of {size.images:,} images"
    return [
        spread(f"{what}: draw, label, plan", seconds, "s", bar=at_most(MAX_SECONDS)),
        row(f"{what}: peak memory", peak / 1e6, "MB", bar=at_most(MAX_MB)),
        spread(f"{what}: as a table", table, "s"),
    ]


def _plan(radiographs: Radiographs, seed: int) -> PoisonLedger:
    """All that is done before a film is read, at the rate that makes the largest ledger."""
    settings = AttackSettings(trigger=PatchTrigger(place="random"), label=LABEL, poison_rate=1.0)
    rows = np.arange(len(radiographs), dtype=np.int64)
    ledger = draw_ledger(radiographs, rows, settings, seed)
    ledger.labels(radiographs)
    stamp(ledger, CONTRACT)
    return ledger


def _stamp(trigger: Trigger, n: int, seed: int) -> Stamp:
    settings = AttackSettings(trigger=trigger, label=LABEL, poison_rate=1.0)
    return stamp(trigger_every(np.arange(n, dtype=np.int64), settings, seed), CONTRACT)


def _read(films: NetworkInputs, transform: Transform) -> list[Image]:
    return [transform(film, i) for i, film in enumerate(films)]


def _loop(size: PoisoningSize, seed: int) -> TrainingLoop:
    films = phantom_training_set(size.batch_size * size.steps, CONTRACT, seed)
    settings = VictimSettings(
        architecture="densenet121", batch_size=size.batch_size, epochs=size.repeats + 1
    )
    return TrainingLoop(films, CONTRACT, tuple(PREVALENCE), settings, seed)


def _stamping(
    trigger: Trigger, added: list[float], trained: float, size: PoisoningSize
) -> list[Row]:
    shares = [100 * size.rate * ms / (size.epochs * trained) for ms in added]
    return [
        spread(f"{trigger.kind}: stamping", added, "ms a film"),
        spread(f"{trigger.kind}: share of training", shares, "%", bar=at_most(MAX_SHARE)),
    ]
