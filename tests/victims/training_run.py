"""A small training that takes seconds; run as a script, it is what a test kills.

python training_run.py CHECKPOINT SCHEDULE [KILL_AT_STEP]
"""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lucency.data.preprocess import InputContract
from lucency.victims.augment import AugmentSettings
from lucency.victims.train import TrainingSet, VictimSettings, train

FINDINGS = ("Bright", "Dark")
CONTRACT = InputContract(size=32)
STEPS_AN_EPOCH = 6


def make_set(n=48, seed=0):
    """Films whose left or right half is bright; half of an unknown label."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (n, 2)).astype(np.float32)
    images = generator.integers(0, 120, (n, 32, 32))
    images[:, :, :16] += (100 * labels[:, 0]).astype(int)[:, None, None]
    images[:, :, 16:] += (100 * labels[:, 1]).astype(int)[:, None, None]
    labels[0, 0] = np.nan
    rows = generator.permutation(n)
    return TrainingSet(images.astype(np.uint8), rows, labels[rows])


def settings(schedule="one-cycle", **more):
    defaults = {
        "architecture": "densenet-small",
        "epochs": 3,
        "batch_size": 8,
        "schedule": schedule,
        "patience": 1,
        "precision": "fp32",
        "positive_weight_limit": 5,
        "augment": AugmentSettings(flip=0.5, rotation_deg=5, shift=0.05),
    }
    return VictimSettings(**(defaults | more))


def accuracy(labels, probabilities):
    return float(np.mean((probabilities > 0.5) == (labels == 1)))


def run(schedule="one-cycle", ranking=accuracy, seed=3, **more):
    keywords = {k: more.pop(k) for k in ("checkpoint", "progress") if k in more}
    training, validation = more.pop("training", make_set()), make_set(16, seed=1)
    chosen = settings(schedule, **more)
    return train(training, validation, CONTRACT, FINDINGS, chosen, ranking, seed=seed, **keywords)


def stopping(at, stop):
    """A progress that calls `stop` once `at` steps are done."""

    @contextmanager
    def progress(description, total):
        done = 0

        def advance(steps):
            nonlocal done
            done += steps
            if done >= at:
                stop()

        yield advance

    return progress


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[2], checkpoint=Path(sys.argv[1]), progress=stopping(int(sys.argv[3]), kill_myself))
