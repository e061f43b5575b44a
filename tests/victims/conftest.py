"""One thread, so that every run gives the same bytes; and a small training to share."""

import numpy as np
import pytest
import torch

from lucency.victims.architectures import build, channels_last
from lucency.victims.victim import Victim


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def victim():
    """A fresh small network of 3 findings on 32 px, in evaluation mode, in float32."""
    from lucency.data.preprocess import InputContract

    network = channels_last(build("densenet-small", 1, 3, seed=1)).eval()
    return Victim(network, InputContract(size=32), ("A", "B", "C"))


@pytest.fixture
def films():
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32)).astype(np.uint8)
