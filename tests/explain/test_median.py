"""The median filter against SciPy's, and against its own promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.explain.median import median_filter
from median_oracle import whole_window_median

WIDTHS = (3, 5, 7, 9)


def _filtered(image: np.ndarray, width: int) -> np.ndarray:
    return median_filter(torch.from_numpy(image)[None, None], width)[0, 0].numpy()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(9, 9), (10, 17), (31, 11), (24, 24)])
def test_equals_scipy_exactly(width: int, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0x5C).random(shape, dtype=np.float32)
    expected = whole_window_median(image, width)
    np.testing.assert_array_equal(_filtered(image, width), expected)


@pytest.mark.parametrize("width", WIDTHS)
def test_equals_scipy_on_films_full_of_ties(width: int) -> None:
    image = np.random.default_rng(0x71E).integers(0, 3, (20, 21)).astype(np.float32)
    expected = whole_window_median(image, width)
    np.testing.assert_array_equal(_filtered(image, width), expected)


def test_images_of_a_batch_do_not_mix_and_are_not_changed() -> None:
    images = torch.rand(3, 1, 12, 15, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    together = median_filter(images, 5)
    assert torch.equal(images, before)
    for i in range(3):
        assert torch.equal(together[i : i + 1], median_filter(images[i : i + 1], 5))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), width=st.sampled_from(WIDTHS), value=st.sampled_from([0.0, 1.0]))
def test_deletes_every_small_patch_anywhere(data, width: int, value: float) -> None:
    """s² < w²/2: nothing of the patch is left, not even in a corner."""
    side = data.draw(st.sampled_from([s for s in range(1, width) if 2 * s * s < width * width]))
    size = 32
    x, y = (data.draw(st.integers(0, size - side)) for _ in range(2))
    seed = data.draw(st.integers(0, 2**31))
    image = np.random.default_rng(seed).uniform(0.3, 0.7, (size, size)).astype(np.float32)
    image[y : y + side, x : x + side] = value
    left = _filtered(image, width)
    assert left.min() >= 0.3
    assert left.max() <= 0.7


@pytest.mark.parametrize(("width", "side"), [(3, 3), (5, 4), (7, 5), (9, 7)])
def test_a_patch_beyond_the_bound_survives(width: int, side: int) -> None:
    image = np.full((32, 32), 0.5, np.float32)
    image[12 : 12 + side, 12 : 12 + side] = 0.0
    assert _filtered(image, width).min() == 0.0
