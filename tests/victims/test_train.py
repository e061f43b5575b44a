"""Training: the same bytes whether or not it was interrupted, and the best epoch is kept."""

import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import training_run
from pydantic import ValidationError
from training_run import FINDINGS, STEPS_AN_EPOCH, make_set, run, settings, stopping

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, IntegrityError, ModelError
from lucency.records import Epoch
from lucency.victims.augment import AugmentSettings
from lucency.victims.checkpoint import load_checkpoint
from lucency.victims.train import (
    TrainingLoop,
    TrainingSet,
    VictimSettings,
    best_epoch,
    train,
)
from lucency.victims.victim import predict

SCHEDULES = ["one-cycle", "plateau"]


@cache
def unbroken(schedule):
    return run(schedule)


def assert_same(a, b):
    assert a.epochs == b.epochs
    assert a.best_epoch == b.best_epoch
    ours, theirs = a.victim.network.state_dict(), b.victim.network.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


class Interrupted(Exception):
    pass


def interrupt():
    raise Interrupted


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", [STEPS_AN_EPOCH + 1, 2 * STEPS_AN_EPOCH + 4])
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, schedule, step):
    checkpoint = tmp_path / "unfinished.safetensors"
    with pytest.raises(Interrupted):
        run(schedule, checkpoint=checkpoint, progress=stopping(step, interrupt))
    finished = load_checkpoint(checkpoint).history
    assert len(finished) == step // STEPS_AN_EPOCH  # at most one epoch is redone
    assert_same(run(schedule, checkpoint=checkpoint), unbroken(schedule))


def test_a_killed_training_ends_with_the_same_bytes(tmp_path):
    checkpoint = tmp_path / "unfinished.safetensors"
    step = str(STEPS_AN_EPOCH + 3)
    command = [sys.executable, training_run.__file__, str(checkpoint), "one-cycle", step]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert len(load_checkpoint(checkpoint).history) == 1
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name]
    assert_same(run(checkpoint=checkpoint), unbroken("one-cycle"))


def test_a_finished_training_is_taken_from_its_checkpoint(tmp_path):
    checkpoint = tmp_path / "unfinished.safetensors"
    assert_same(run(checkpoint=checkpoint), unbroken("one-cycle"))
    steps = []
    with pytest.raises(Interrupted):  # all steps are told at once, none is taken
        run(checkpoint=checkpoint, progress=stopping(3 * STEPS_AN_EPOCH, interrupt))
    again = run(checkpoint=checkpoint, progress=stopping(1, lambda: steps.append(1)))
    assert steps == [1]
    assert_same(again, unbroken("one-cycle"))


def test_the_seed_decides_and_the_global_generators_do_not():
    torch.manual_seed(99)
    np.random.seed(99)
    assert_same(run(), unbroken("one-cycle"))
    other = run(seed=4)
    assert other.epochs != unbroken("one-cycle").epochs


@pytest.mark.parametrize(
    ("aurocs", "best"),
    [([0.5, 0.9, 0.7], 2), ([0.9, 0.5, 0.7], 1), ([None, 0.2, None], 2), ([0.6, 0.6, 0.6], None)],
)
def test_the_weights_of_the_best_epoch_are_kept(aurocs, best):
    said, logits = iter(aurocs), []

    def ranking(_, probabilities):
        logits.append(probabilities)
        return next(said)

    trained = run(ranking=ranking)
    assert [e.validation_auroc for e in trained.epochs] == aurocs
    if best is None:  # a tie: the lower validation loss decides
        best = min(trained.epochs, key=lambda e: e.validation_loss).epoch
    assert trained.best_epoch == best
    validation = make_set(16, seed=1)
    kept = torch.sigmoid(
        torch.from_numpy(predict(trained.victim, validation.images[validation.rows]))
    )
    np.testing.assert_array_equal(kept.numpy(), logits[best - 1])
    assert not trained.victim.network.training


def epoch(number, auroc, loss):
    return Epoch(epoch=number, loss=0.0, validation_loss=loss, validation_auroc=auroc)


@pytest.mark.parametrize(
    ("history", "best"),
    [
        ([(0.7, 1.0), (0.8, 2.0)], 2),
        ([(0.8, 2.0), (0.8, 1.0)], 2),
        ([(0.8, 1.0), (0.8, 1.0)], 1),
        ([(None, 2.0), (None, 1.0), (None, 3.0)], 2),
        ([(None, 0.1), (0.1, 9.0)], 2),
    ],
)
def test_best_epoch(history, best):
    assert best_epoch([epoch(k + 1, *values) for k, values in enumerate(history)]) == best


@pytest.mark.parametrize("loss", ["bce", "categorical-on-sigmoids"])
def test_it_learns(loss):
    trained = run(loss=loss, epochs=4, augment={}, learning_rate=3e-3)
    losses = [e.loss for e in trained.epochs]
    assert losses[-1] < losses[0]


def rates(schedule, checkpoint):
    """The learning rate that each of five epochs ended with, from its checkpoint."""
    seen = []
    for n in range(1, 6):
        progress = stopping(n * STEPS_AN_EPOCH + 1, interrupt)
        with pytest.raises(Interrupted):
            run(schedule, checkpoint=checkpoint, epochs=6, progress=progress)
        seen.append(load_checkpoint(checkpoint).optimiser["param_groups"][0]["lr"])
    return seen


def test_one_cycle_rises_and_falls(tmp_path):
    seen = rates("one-cycle", tmp_path / "c.safetensors")
    assert seen[1] > seen[0]
    assert seen[-1] < max(seen) / 2
    assert max(seen) <= 1e-3


def test_plateau_halves_the_rate_after_two_epochs_without_progress(tmp_path, monkeypatch):
    def worse_and_worse(number, loss, logits, labels, ranking):
        return epoch(number + 1, None, loss=float(number))

    monkeypatch.setattr("lucency.victims.train._measure", worse_and_worse)
    seen = rates("plateau", tmp_path / "c.safetensors")
    assert seen == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]


def test_it_stops_after_so_many_epochs_without_a_lower_loss(tmp_path, monkeypatch):
    losses = [3.0, 2.0, 2.5, 2.0, 1.0, 1.5, 1.5, 0.5]

    def measured(number, loss, logits, labels, ranking):
        return epoch(number + 1, None, loss=losses[number])

    monkeypatch.setattr("lucency.victims.train._measure", measured)
    assert len(run(epochs=8, stop_after=2).epochs) == 4
    assert len(run(epochs=8, stop_after=3).epochs) == 8
    # From its checkpoint it stops at the same epoch.
    place = tmp_path / "c.safetensors"
    for _ in range(2):
        assert len(run(epochs=8, stop_after=2, checkpoint=place).epochs) == 4


def test_frozen_augmentation_shows_every_epoch_the_same_films(monkeypatch):
    flip = AugmentSettings(flip=0.5, frozen=True)
    training = make_set()
    loop = TrainingLoop(training, InputContract(size=32), FINDINGS, settings(augment=flip), 3)
    kept = (loop.training.images == training.images).all(axis=(1, 2))
    turned = (loop.training.images == training.images[:, :, ::-1]).all(axis=(1, 2))
    assert (kept | turned).all()
    assert 0 < turned.sum() < len(turned)
    monkeypatch.setattr("lucency.victims.train.augment", None)
    loop.train_epoch(0, lambda steps: None)


# --- what is refused ------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_no_checkpoint(tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    blinding = InputContract(size=32, std=(1e-38,))
    with pytest.raises(ModelError, match=r"loss must be finite, got nan in epoch 1; lower"):
        train(
            make_set(), make_set(16), blinding, FINDINGS, settings(), training_run.accuracy,
            seed=0, checkpoint=checkpoint,
        )  # fmt: skip
    assert not checkpoint.exists()


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size must be at most the 48 .* got 49"):
        run(batch_size=49)


def test_an_input_too_small_for_the_network_is_refused():
    small = TrainingSet(np.zeros((8, 16, 16), np.uint8), np.arange(8), np.zeros((8, 2), np.float32))
    with pytest.raises(ConfigError, match="size must be at least 32"):
        train(
            small, small, InputContract(size=16), FINDINGS, settings(), training_run.accuracy,
            seed=0,
        )  # fmt: skip


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ConfigError, match="architecture must be one of"):
        run(architecture="resnet18")


@pytest.mark.parametrize(
    "other",
    [
        {"schedule": "plateau"},
        {"architecture": "densenet121"},
        {"seed": 4},
        {"epochs": 5},
        {"training": make_set(seed=8)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, other):
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(Interrupted):
        run(checkpoint=checkpoint, progress=stopping(STEPS_AN_EPOCH + 1, interrupt))
    with pytest.raises(IntegrityError, match="belongs to another training"):
        run(checkpoint=checkpoint, **other)


def test_a_torn_checkpoint_is_refused_by_name(tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    checkpoint.write_bytes(b"torn")
    with pytest.raises(IntegrityError, match=r"c\.safetensors"):
        run(checkpoint=checkpoint)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"loss": "mse"},
        {"schedule": "cosine"},
        {"precision": "fp16"},
        {"positive_weight_limit": 0.5},
        {"momentum": 0.9},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_name(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        VictimSettings.model_validate(bad)


def test_the_settings_survive_json():
    chosen = settings("plateau", loss="categorical-on-sigmoids")
    assert VictimSettings.model_validate_json(chosen.model_dump_json()) == chosen


def test_the_script_that_is_killed_is_this_one():
    assert Path(training_run.__file__).parent == Path(__file__).parent
