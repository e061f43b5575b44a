"""Train a victim: a plain loop on Lightning Fabric, the same for the clean and the poisoned set.

All randomness is a function of (seed, epoch), so a run that was killed continues from its last
finished epoch and ends with the same bytes, at the same number of threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor

from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError, IntegrityError, ModelError
from lucency.progress import Progress, silent
from lucency.records import Epoch, FloatArray, IntArray, NetworkInputs, Record
from lucency.victims.architectures import build, channels_last, require_size
from lucency.victims.augment import AugmentSettings, augment
from lucency.victims.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lucency.victims.losses import LOSSES, positive_weights
from lucency.victims.victim import (
    Victim,
    default_device,
    has_fast_bf16,
    normalise,
    predict,
    to_grey,
)
from lucency.writing import digest

CHUNK = 512
"""Films that are augmented at once."""
Ranking = Callable[[FloatArray, FloatArray], float | None]
"""(labels (N, K), probabilities (N, K)) -> macro AUROC, or None where it is undefined."""


class VictimSettings(Record):
    """`[victim]`.

    loss: "bce", or "categorical-on-sigmoids", the published one. positive_weight_limit: positives
    weigh negatives ÷ positives, at most this (1 = no weights). schedule: "one-cycle" over all
    steps, or "plateau", which halves the rate after `patience` epochs without a better validation
    loss. stop_after: epochs without a better validation loss after which training ends (None =
    all epochs are run). precision: "auto" takes bf16 where the device computes it.
    """

    architecture: str = "densenet121"
    loss: Literal["bce", "categorical-on-sigmoids"] = "bce"
    positive_weight_limit: float = Field(default=1.0, ge=1)
    epochs: int = Field(default=10, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=2, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    schedule: Literal["one-cycle", "plateau"] = "one-cycle"
    patience: int = Field(default=3, ge=1)
    stop_after: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    augment: AugmentSettings = AugmentSettings()


@dataclass(frozen=True)
class TrainingSet:
    """images (N, size, size) as stored; rows (M,) of it in training, a row's labels (M, K)."""

    images: NetworkInputs
    rows: IntArray
    labels: FloatArray


@dataclass(frozen=True)
class Trained:
    """The victim at its best epoch, and every epoch's record."""

    victim: Victim
    epochs: tuple[Epoch, ...]
    best_epoch: int


def train(
    training: TrainingSet,
    validation: TrainingSet,
    contract: InputContract,
    findings: tuple[str, ...],
    settings: VictimSettings,
    ranking: Ranking,
    *,
    seed: int,
    checkpoint: Path | None = None,
    initial: Mapping[str, Tensor] | None = None,
    keep: Literal["best", "last"] = "best",
    progress: Progress = silent,
    description: str = "Training",
) -> Trained:
    """Train on `training`, keep the weights of the best macro AUROC on the clean `validation`.

    initial: weights to start from; None = fresh ones, drawn from the seed. keep: "last" keeps the
    last epoch's weights instead. checkpoint: a file written after each epoch, from which a killed
    training continues.
    Raises ConfigError for a set too small for one batch, ModelError if the loss is not finite,
    IntegrityError for a checkpoint that is torn or of another training.
    """
    loop = TrainingLoop(training, contract, findings, settings, seed, initial)
    state = load_checkpoint(checkpoint) if checkpoint and checkpoint.exists() else None
    history, best = loop.restore(state) if state else ([], None)
    steps = settings.epochs * loop.steps_per_epoch
    with progress(description, steps) as advance:
        advance(len(history) * loop.steps_per_epoch)
        for epoch in range(len(history), settings.epochs):
            if _is_stuck(history, settings.stop_after):
                advance((settings.epochs - epoch) * loop.steps_per_epoch)
                break
            loss = loop.train_epoch(epoch, advance)
            victim = loop.victim()
            logits = predict(victim, validation.images[validation.rows])
            measured = _measure(epoch, loss, logits, validation.labels, ranking)
            loop.end_epoch(measured.validation_loss)
            history.append(measured)
            if keep == "last" or _is_better(measured, history[:-1]):
                best = loop.weights()
            if checkpoint and best is not None:
                records = [h.model_dump() for h in history]
                save_checkpoint(checkpoint, loop.snapshot(records, best))
    if best is None:
        raise ModelError("Training must run at least one epoch.")
    loop.network.load_state_dict(best)
    chosen = len(history) if keep == "last" else best_epoch(history)
    return Trained(loop.victim(), tuple(history), chosen)


class TrainingLoop:
    """The moving parts of one training: network, optimiser, schedule."""

    def __init__(
        self,
        training: TrainingSet,
        contract: InputContract,
        findings: tuple[str, ...],
        settings: VictimSettings,
        seed: int,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.contract, self.findings = contract, findings
        self.settings, self.seed = settings, seed
        self.training = _augmented_once(training, settings.augment, seed)
        self.start = None if initial is None else _fingerprint(initial)
        self.steps_per_epoch = len(training.rows) // settings.batch_size
        if self.steps_per_epoch == 0:
            raise ConfigError(
                f"[victim] batch_size must be at most the {len(training.rows)} training images, "
                f"got {settings.batch_size}."
            )
        require_size(contract.size)
        for name in ("lightning_fabric", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.bf16 = _resolve_precision(settings.precision)
        self.fabric = Fabric(devices=1, precision="bf16-mixed" if self.bf16 else "32-true")
        network = build(settings.architecture, contract.channels, len(findings), seed)
        if initial is not None:
            network.load_state_dict(dict(initial))
        self.network = channels_last(network)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.optimiser: torch.optim.Optimizer = optimiser
        self.wrapped, self.fabric_optimiser = self.fabric.setup(self.network, optimiser)
        self.schedule = self._schedule()
        labels = torch.from_numpy(training.labels)
        self.weights_of_positives = self.fabric.to_device(
            positive_weights(labels, settings.positive_weight_limit)
        )

    def victim(self) -> Victim:
        return Victim(self.network.eval(), self.contract, self.findings, self.bf16)

    def weights(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def train_epoch(self, epoch: int, advance: Callable[[int], None]) -> float:
        """One pass over the shuffled rows, the ragged end dropped; returns the mean loss."""
        order = np.random.default_rng([self.seed, 0x0E, epoch]).permutation(len(self.training.rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        self.wrapped.train()
        total = 0.0
        for step in range(self.steps_per_epoch):
            chosen = order[step * self.settings.batch_size : (step + 1) * self.settings.batch_size]
            total += self._step(chosen, generator)
            advance(1)
        if not np.isfinite(total):
            raise ModelError(
                f"The training loss must be finite, got {total} in epoch {epoch + 1}; lower "
                "[victim] learning_rate."
            )
        return total / self.steps_per_epoch

    def end_epoch(self, validation_loss: float) -> None:
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(validation_loss)

    def snapshot(self, history: list[dict[str, object]], best: dict[str, Tensor]) -> Checkpoint:
        return Checkpoint(
            training=self.identity(),
            history=history,
            network=self.weights(),
            best=best,
            optimiser=self.optimiser.state_dict(),
            schedule=self.schedule.state_dict(),
        )

    def restore(self, state: Checkpoint) -> tuple[list[Epoch], dict[str, Tensor]]:
        if state.training != self.identity():
            raise IntegrityError(
                "The checkpoint belongs to another training (its settings, seed, findings or "
                "labels differ); delete it to train from the start."
            )
        self.network.load_state_dict(state.network)
        self.optimiser.load_state_dict(state.optimiser)
        self.schedule.load_state_dict(state.schedule)
        return [Epoch.model_validate(h) for h in state.history], state.best

    def identity(self) -> str:
        """A digest of what is trained, but for the pixels."""
        return digest(
            {
                "settings": self.settings,
                "input": self.contract,
                "findings": self.findings,
                "seed": self.seed,
                "rows": self.training.rows.tobytes().hex(),
                "labels": self.training.labels.tobytes().hex(),
                **({"initial": self.start} if self.start else {}),
            }
        )

    def _step(self, chosen: IntArray, generator: torch.Generator) -> float:
        grey = to_grey(self.training.images[self.training.rows[chosen]], self.fabric.device)
        if not self.settings.augment.frozen:
            grey = augment(grey, self.settings.augment, generator)
        labels = self.fabric.to_device(torch.from_numpy(self.training.labels[chosen]))
        self.fabric_optimiser.zero_grad(set_to_none=True)
        logits = self.wrapped(normalise(grey, self.contract))
        loss = LOSSES[self.settings.loss](logits.float(), labels, self.weights_of_positives)
        self.fabric.backward(loss)
        self.fabric_optimiser.step()
        if isinstance(self.schedule, torch.optim.lr_scheduler.OneCycleLR):
            self.schedule.step()
        return float(loss.detach())

    def _schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        if self.settings.schedule == "one-cycle":
            return torch.optim.lr_scheduler.OneCycleLR(
                self.optimiser,
                max_lr=self.settings.learning_rate,
                total_steps=self.settings.epochs * self.steps_per_epoch,
            )
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=0.5, patience=self.settings.patience, min_lr=1e-5
        )


def _augmented_once(training: TrainingSet, settings: AugmentSettings, seed: int) -> TrainingSet:
    """The same films for every epoch, if augmentation is frozen."""
    if not settings.frozen or settings.is_identity:
        return training
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 999_983)
    images = np.empty_like(training.images)
    scale = full_scale(images.dtype)
    for first in range(0, len(images), CHUNK):
        chosen = slice(first, first + CHUNK)
        grey = augment(to_grey(training.images[chosen], torch.device("cpu")), settings, generator)
        images[chosen] = np.rint(grey[:, 0].numpy() * scale)
    return TrainingSet(images, training.rows, training.labels)


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    """sha256 of weights, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _resolve_precision(precision: Literal["auto", "bf16", "fp32"]) -> bool:
    """Whether to compute in bf16."""
    if precision != "auto":
        return precision == "bf16"
    return has_fast_bf16(default_device())


def _measure(
    epoch: int, loss: float, logits: FloatArray, labels: FloatArray, ranking: Ranking
) -> Epoch:
    scores, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    ones = torch.ones(scores.shape[1])
    return Epoch(
        epoch=epoch + 1,
        loss=loss,
        validation_loss=float(LOSSES["bce"](scores, truth, ones)),
        validation_auroc=ranking(labels, torch.sigmoid(scores).numpy()),
    )


def _is_stuck(history: Sequence[Epoch], stop_after: int | None) -> bool:
    """Whether the validation loss has not fallen for so many epochs."""
    if stop_after is None or len(history) <= stop_after:
        return False
    losses = [epoch.validation_loss for epoch in history]
    return min(losses[-stop_after:]) >= min(losses[:-stop_after])


def _is_better(new: Epoch, before: list[Epoch]) -> bool:
    """Higher validation AUROC; where it is undefined throughout, lower validation loss."""
    return all(_merit(new) > _merit(old) for old in before)


def _merit(epoch: Epoch) -> tuple[float, float]:
    auroc = epoch.validation_auroc
    return (-1.0 if auroc is None else auroc, -epoch.validation_loss)


def best_epoch(history: Sequence[Epoch]) -> int:
    """The number of the epoch whose weights are kept."""
    return max(history, key=_merit).epoch
