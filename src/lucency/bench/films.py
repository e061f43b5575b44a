"""Synthetic films to measure on."""

from __future__ import annotations

import numpy as np

from lucency.attacks.ledger import plain
from lucency.data.inputs import read_inputs
from lucency.data.phantom import PhantomSource
from lucency.data.preprocess import InputContract
from lucency.records import FloatArray, NetworkInputs
from lucency.victims.train import TrainingSet

# A cohort, or a film, smaller than this cannot be drawn.
SMALLEST = 50
SMALLEST_PX = 64


def phantom_inputs(n: int, contract: InputContract, seed: int) -> tuple[NetworkInputs, FloatArray]:
    """n films drawn at the network's resolution (n, size, size), and their labels (n, 14)."""
    side = max(contract.size, SMALLEST_PX)
    source = PhantomSource(images=max(n, SMALLEST), size=side).load(seed)
    rows = np.arange(n, dtype=np.int64)
    inputs, _ = read_inputs(source, rows, plain(contract), contract)
    return inputs.images, source.labels[rows]


def phantom_training_set(n: int, contract: InputContract, seed: int) -> TrainingSet:
    """The same as films to train on."""
    images, labels = phantom_inputs(n, contract, seed)
    return TrainingSet(images, np.arange(n, dtype=np.int64), labels)
