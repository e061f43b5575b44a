"""What a number of times is out of the ordinary."""

from __future__ import annotations

import numpy as np
import pytest

from lucency.detect.datasets.tail import UNKNOWN, beyond


def _slow(sizes: list[int], size: int, enough: int) -> float:
    """From the definition: the others that were seen s times, and once more."""
    others = list(sizes)
    others.remove(size)
    shares = []
    for s in range(1, size):
        n = sum(other >= s for other in others)
        if n >= enough:
            shares.append((sum(other >= s + 1 for other in others) + 1) / (n + 1))
    return float((max(shares) if shares else UNKNOWN) ** (size - 1))


@pytest.mark.parametrize("enough", [1, 3, 10])
def test_like_the_definition(enough: int) -> None:
    generator = np.random.default_rng(1)
    sizes = generator.geometric(0.6, 500)
    tested = np.unique(sizes)
    expected = [_slow(sizes.tolist(), int(size), enough) for size in tested]
    assert beyond(sizes, tested, enough) == pytest.approx(expected)


def test_of_things_that_come_back_by_chance_few_are_out_of_the_ordinary() -> None:
    generator = np.random.default_rng(2)
    for share in (0.2, 0.5, 0.8):
        sizes = generator.geometric(share, 20_000)
        p_values = beyond(sizes, sizes, 10)
        for level in (0.1, 0.01, 0.001):
            assert (p_values <= level).mean() <= 1.5 * level


def test_one_that_stands_out() -> None:
    sizes = np.append(np.random.default_rng(3).geometric(0.9, 1000), 9)
    assert beyond(sizes, np.array([9]), 10)[0] < 1e-4


def test_without_others_nothing_is_known() -> None:
    assert beyond(np.array([5]), np.array([5]), 3).tolist() == [UNKNOWN**4]
    assert len(beyond(np.zeros(0, np.int64), np.zeros(0, np.int64), 3)) == 0
