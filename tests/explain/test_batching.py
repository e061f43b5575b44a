"""How many images go through a network at once, and that they are all there."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from explain_toys import make_grey, make_victim, n_hooks, state
from torch import Tensor, nn

from lucency.data.preprocess import InputContract
from lucency.explain.batching import LARGEST, UNKNOWN, batches, logits_of, micro_batch, tiles
from lucency.victims.victim import Victim

MB = 2**20


class Wide(nn.Module):
    """Reads 64 × 64 float32 (16 KiB), writes 4 such maps, rectifies them in place, halves them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu = nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(4 * 32 * 32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(self.convolution(x))).flatten(1))


# Input, four maps, four maps of a quarter, two logits. What is rectified in place, and what is
# flattened, is no tensor of its own.
TOGETHER = 4 * (64 * 64 + 4 * 64 * 64 + 4 * 32 * 32 + 2)
LARGEST_MAP = 4 * 4 * 64 * 64


def wide() -> Victim:
    return Victim(Wide().eval(), InputContract(size=64), ("a", "b"))


@pytest.mark.parametrize("n", [1, 3, 10])
def test_activations_fill_the_budget_and_no_more(n: int) -> None:
    victim = wide()
    assert micro_batch(victim, budget_mb=n * TOGETHER / MB) == n
    assert micro_batch(victim, budget_mb=(n * TOGETHER - 1) / MB) == max(1, n - 1)
    needed = 4 * LARGEST_MAP
    assert micro_batch(victim, budget_mb=n * needed / MB, with_gradients=False) == n
    assert micro_batch(victim, budget_mb=(n * needed - 1) / MB, with_gradients=False) == max(
        1, n - 1
    )


def test_at_least_one_image_and_not_more_than_useful() -> None:
    victim = wide()
    assert micro_batch(victim, budget_mb=0.0) == 1
    assert micro_batch(victim, budget_mb=1e9) == LARGEST
    assert micro_batch(replace(victim, differentiable=False)) == UNKNOWN


def test_bfloat16_activations_are_half_as_large() -> None:
    victim = make_victim()
    full, half = (micro_batch(replace(victim, bf16=bf16), budget_mb=20.0) for bf16 in (False, True))
    assert full < half <= 2 * full + 1


def test_a_network_is_measured_once_and_not_counted() -> None:
    victim = make_victim()
    seen = []
    handle = victim.network.register_forward_hook(lambda *_: seen.append(1))
    sizes = {micro_batch(victim, budget_mb=10.0) for _ in range(3)}
    handle.remove()
    assert len(sizes) == len(seen) == 1
    assert victim.passes.forwards == 0
    assert n_hooks(victim.network) == 0


def test_measuring_leaves_the_network_as_it_was_and_does_not_keep_it() -> None:
    victim = make_victim()
    victim.network.train()
    before = state(victim.network)
    micro_batch(victim)
    assert state(victim.network) == before
    kept = weakref.ref(victim.network)
    del victim
    gc.collect()
    assert kept() is None


def test_slices_hold_every_image_once_and_in_order() -> None:
    victim = wide()
    budget = 3 * TOGETHER / MB
    assert list(batches(victim, 7, budget_mb=budget)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(batches(victim, 1, budget_mb=budget)) == [slice(0, 1)]


@pytest.mark.parametrize(("n", "n_samples"), [(1, 7), (2, 5), (3, 4), (7, 2), (7, 1)])
def test_tiles_hold_every_version_once_and_never_too_many(n: int, n_samples: int) -> None:
    victim = wide()
    counted = torch.zeros(n, n_samples)
    for images, samples in tiles(victim, n, n_samples, budget_mb=3 * TOGETHER / MB):
        part = counted[images, samples]
        assert 1 <= part.numel() <= 3
        part += 1
    assert (counted == 1).all()


def test_logits_are_those_of_the_victim() -> None:
    victim, grey = make_victim(), make_grey(5)
    found = logits_of(victim, grey, budget_mb=0.1)
    with torch.no_grad():
        torch.testing.assert_close(found, victim.logits(grey), atol=1e-5, rtol=1e-4)
    assert not found.is_inference()
