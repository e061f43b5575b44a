"""Training: images a second of our step against a plain one, with the same network and films."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import binary_cross_entropy_with_logits

from lucency.bench.films import phantom_training_set
from lucency.bench.machine import Machine, describe_machine
from lucency.bench.record import Bar, Benchmark, Row, at_least, spread
from lucency.bench.timing import interleave, rates, ratios
from lucency.data.phantom import PREVALENCE
from lucency.data.preprocess import InputContract
from lucency.progress import Advance, Progress, silent
from lucency.records import Record
from lucency.victims.architectures import build
from lucency.victims.train import TrainingLoop, TrainingSet, VictimSettings

NAME = "training"
PEER = (
    "a plain PyTorch loop: float32, default layout, the same network, seed, AdamW, loss and films"
)
FINDINGS = tuple(PREVALENCE)


class Case(Record):
    """One row of the benchmark. judged: whether the bar stands beside it."""

    architecture: str
    size: int
    channels: int = 1
    batch_size: int
    steps: int = Field(ge=1)
    judged: bool = True

    def __str__(self) -> str:
        channels = f"{self.channels} channel{'s' * (self.channels > 1)}"
        return f"{self.architecture}, {self.size} px, {channels}, batch {self.batch_size}"


class TrainingSize(Record):
    """How much is trained: the cases, each `repeats` times `steps` steps a loop."""

    cases: tuple[Case, ...] = (
        Case(architecture="densenet121", size=224, channels=1, batch_size=16, steps=2),
        Case(architecture="densenet121", size=224, channels=3, batch_size=16, steps=2),
        Case(architecture="densenet-small", size=64, batch_size=64, steps=8, judged=False),
    )
    repeats: int = Field(default=5, ge=1)


FULL = TrainingSize()


def bench_training(seed: int, progress: Progress = silent, size: TrainingSize = FULL) -> Benchmark:
    """Measure each case. Bar: 2 × with AMX or AVX-512-BF16, 1.1 × elsewhere."""
    machine = describe_machine()
    rows: list[Row] = []
    notes = [
        "14 findings; the films lie in memory; a step = films to tensor, forward, loss, backward, "
        f"optimiser. Each repeat {size.cases[0].steps} steps or more, in turn ours and the plain "
        "one; a ratio is taken within a repeat."
    ]
    with progress("Benchmark: training", len(size.cases) * 2 * (size.repeats + 1)) as advance:
        for case in size.cases:
            measured, precision = _measure(case, size.repeats, seed, _bar(machine), advance)
            rows += measured
            notes.append(f"{case}: ours computed in {precision}.")
    return Benchmark(
        name=NAME,
        title="images a second, our training step against a plain one",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _bar(machine: Machine) -> Bar:
    fast = machine.device == "cpu" and (machine.amx or machine.avx512_bf16)
    return at_least(2.0 if fast else 1.1)


def _measure(
    case: Case, repeats: int, seed: int, bar: Bar, advance: Advance
) -> tuple[list[Row], str]:
    n = case.batch_size * case.steps
    contract = InputContract(size=case.size, channels=1 if case.channels == 1 else 3)
    films = phantom_training_set(n, contract, seed)
    settings = VictimSettings(
        architecture=case.architecture, batch_size=case.batch_size, epochs=repeats + 1
    )
    ours = TrainingLoop(films, contract, FINDINGS, settings, seed)
    plain = PlainLoop(films, contract, settings, seed, ours.fabric.device)
    epochs = iter(range(settings.epochs))
    seconds = interleave(
        {
            "ours": lambda: ours.train_epoch(next(epochs), lambda steps: None),
            "plain": plain.train_epoch,
        },
        repeats,
        advance,
    )
    rows = [
        spread(f"{case}: ours", rates(n, seconds["ours"]), "images/s"),
        spread(f"{case}: plain", rates(n, seconds["plain"]), "images/s"),
        spread(
            f"{case}: ours ÷ plain",
            ratios(seconds["plain"], seconds["ours"]),
            "×",
            bar=bar if case.judged else None,
        ),
    ]
    return rows, "bf16" if ours.bf16 else "float32"


class PlainLoop:
    """The loop that a tutorial would write."""

    def __init__(
        self,
        films: TrainingSet,
        contract: InputContract,
        settings: VictimSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.films, self.contract, self.device = films, contract, device
        self.batch_size = settings.batch_size
        self.random = np.random.default_rng(seed)
        self.network = build(
            settings.architecture, contract.channels, films.labels.shape[1], seed
        ).to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def train_epoch(self) -> float:
        """One pass over the shuffled films; the mean loss."""
        self.network.train()
        order = self.random.permutation(len(self.films.rows))
        batches = np.split(order, len(order) // self.batch_size)
        total = 0.0
        for chosen in batches:
            images = torch.from_numpy(self.films.images[chosen]).to(self.device).float() / 255
            images = (images[:, None] - self.contract.mean[0]) / self.contract.std[0]
            images = images.repeat(1, self.contract.channels, 1, 1)
            labels = torch.from_numpy(self.films.labels[chosen]).to(self.device)
            self.optimiser.zero_grad()
            loss = binary_cross_entropy_with_logits(self.network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += loss.item()
        return total / len(batches)
