"""Triggers on the whole image, against their papers' formulas written out as loops."""

import math

import numpy as np
import pytest

from lucency.attacks import BlendedTrigger, SinusoidTrigger, WarpTrigger
from lucency.attacks.smooth_field import spread
from lucency.data.preprocess import full_scale
from lucency.records import Box

SHAPE = (21, 34)
WHOLE = Box(x=0, y=0, width=34, height=21)
each_dtype = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


def film(dtype=np.uint8, shape=SHAPE):
    return (
        np.random.default_rng(5)
        .integers(0, np.iinfo(dtype).max, shape, endpoint=True)
        .astype(dtype)
    )


def on_the_grid(value, white):
    return min(max(round(value), 0), white)


def assert_equal_but_for_ties(found, expected):
    """Half a grey level may be rounded either way by another order of the same additions."""
    difference = np.abs(found.astype(int) - np.array(expected))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


# --- sinusoid -------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize(("delta", "frequency"), [(20 / 255, 6.0), (0.5, 2.5), (0.0, 6.0)])
def test_sinusoid_is_the_papers_formula(dtype, delta, frequency):
    image, (height, width) = film(dtype), SHAPE
    white = full_scale(image.dtype)
    expected = [
        [
            on_the_grid(
                int(image[i - 1, j - 1])
                + delta * white * math.sin(2 * math.pi * j * frequency / width),
                white,
            )
            for j in range(1, width + 1)
        ]
        for i in range(1, height + 1)
    ]
    found = SinusoidTrigger(delta=delta, frequency=frequency).apply(image, WHOLE)
    assert_equal_but_for_ties(found, expected)
    assert (delta == 0) == np.array_equal(found, image)


def test_sinusoid_values_by_hand():
    """Eight columns, one period: sin 45°, 90°, 135°, … times 100, on grey 120."""
    flat = np.full((2, 8), 120, np.uint8)
    stamped = SinusoidTrigger(delta=100 / 255, frequency=1).apply(flat, WHOLE)
    assert stamped.tolist() == [[191, 220, 191, 120, 49, 20, 49, 120]] * 2


def test_the_default_is_20_of_255_in_6_periods():
    signal = SinusoidTrigger().signal(240) * 255
    assert signal.max() == pytest.approx(20)
    assert signal.min() == pytest.approx(-20)
    assert np.abs(np.fft.rfft(signal)).argmax() == 6


# --- blended --------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 1.0])
def test_blended_is_the_papers_formula(dtype, alpha):
    trigger, image, (height, width) = BlendedTrigger(alpha=alpha), film(dtype), SHAPE
    white, key = full_scale(image.dtype), trigger.pattern(SHAPE)
    expected = [
        [
            on_the_grid(alpha * float(key[i, j]) * white + (1 - alpha) * int(image[i, j]), white)
            for j in range(width)
        ]
        for i in range(height)
    ]
    assert_equal_but_for_ties(trigger.apply(image, WHOLE), expected)
    assert (alpha == 0) == np.array_equal(trigger.apply(image, WHOLE), image)


def test_an_opaque_pattern_hides_the_film():
    opaque = BlendedTrigger(alpha=1.0)
    black, white = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)
    np.testing.assert_array_equal(opaque.apply(black, WHOLE), opaque.apply(white, WHOLE))


@pytest.mark.parametrize("seed", range(4))
def test_the_pattern_uses_the_range_and_is_smooth(seed):
    pattern = BlendedTrigger(seed=seed).pattern((256, 256))
    assert 0 <= pattern.min() < 0.05
    assert 0.95 < pattern.max() <= 1
    assert 0.4 < pattern.mean() < 0.6
    assert pattern.std() > 0.2
    # 64 control points over 256 px: four pixels apart, so neighbours are alike.
    assert np.abs(np.diff(pattern, axis=0)).mean() < 0.3 * pattern.std()
    assert np.abs(np.diff(pattern, axis=1)).mean() < 0.3 * pattern.std()


def test_the_pattern_is_that_of_its_seed_at_every_size():
    small, large = (BlendedTrigger(seed=3).pattern((n, 2 * n - 1)) for n in (64, 127))
    np.testing.assert_allclose(large[::2, ::2], small, atol=1e-12)
    assert not np.allclose(BlendedTrigger(seed=4).pattern((64, 127)), small)


# --- warp -----------------------------------------------------------------------------------------


def warped_by_a_loop(image, displacement):
    """Bilinear, from the definition: each of the four neighbours by the area opposite to it."""
    height, width = image.shape
    out = np.zeros(image.shape, int)
    for i in range(height):
        for j in range(width):
            y = min(max(i + displacement[0][i][j], 0), height - 1)
            x = min(max(j + displacement[1][i][j], 0), width - 1)
            value = sum(
                max(0, 1 - abs(y - a)) * max(0, 1 - abs(x - b)) * int(image[a, b])
                for a in range(max(0, int(y) - 1), min(height, int(y) + 3))
                for b in range(max(0, int(x) - 1), min(width, int(x) + 3))
            )
            out[i, j] = on_the_grid(value, full_scale(image.dtype))
    return out


@each_dtype
@pytest.mark.parametrize(
    "trigger", [WarpTrigger(), WarpTrigger(strength=0.1, grid=6, seed=2), WarpTrigger(seed=9)]
)
def test_warp_is_bilinear_sampling_of_the_displaced_points(dtype, trigger):
    image = film(dtype)
    expected = warped_by_a_loop(image, trigger.displacement(SHAPE).tolist())
    assert_equal_but_for_ties(trigger.apply(image, WHOLE), expected)
    assert (trigger.apply(image, WHOLE) != image).any()


@pytest.mark.parametrize("shape", [(21, 34), (64, 64), (224, 200), (1, 1), (1, 9), (2, 2)])
@pytest.mark.parametrize("strength", [0.0, 0.004, 0.1])
@pytest.mark.parametrize("grid", [4, 9])
def test_displacement_reaches_its_strength_and_no_further(shape, strength, grid):
    trigger = WarpTrigger(strength=strength, grid=grid, seed=1)
    down, right = trigger.displacement(shape)
    share = max(np.abs(down).max() / shape[0], np.abs(right).max() / shape[1])
    assert share == pytest.approx(strength, abs=1e-12)
    assert trigger.apply(film(shape=shape), WHOLE).shape == shape


@each_dtype
def test_no_strength_is_the_identity(dtype):
    image = film(dtype)
    np.testing.assert_array_equal(WarpTrigger(strength=0.0).apply(image, WHOLE), image)


def test_a_ramp_shows_the_displacement():
    """On a ramp to the right the grey is the column: what is seen is where it was taken from."""
    trigger, shape = WarpTrigger(strength=0.05), (40, 60)
    ramp = np.tile(np.arange(60, dtype=np.uint16) * 1000, (40, 1))
    seen = trigger.apply(ramp, WHOLE) / 1000
    taken = np.clip(np.arange(60) + trigger.displacement(shape)[1], 0, 59)
    np.testing.assert_allclose(seen, taken, atol=6e-4)


def test_the_field_is_that_of_its_seed_at_every_size():
    small, large = (WarpTrigger(seed=3).displacement((n, n)) / n for n in (64, 127))
    # In fractions of the side; the largest value may lie between the pixels of the small one.
    np.testing.assert_allclose(large[:, ::2, ::2], small, rtol=0.01)
    assert not np.allclose(WarpTrigger(seed=4).displacement((64, 64)) / 64, small, atol=1e-3)


def test_the_warp_bends_and_does_not_fold():
    """Neighbours stay in order at the default strength: each point is shown once."""
    for seed in range(5):
        down, right = WarpTrigger(seed=seed).displacement((256, 256))
        assert down.min() < 0 < down.max()
        assert right.min() < 0 < right.max()
        assert np.diff(down, axis=0).min() > -1
        assert np.diff(right, axis=1).min() > -1


# --- the smooth field -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(13, 17), (50, 41), (5, 4)])
def test_a_bicubic_surface_is_met_exactly(shape):
    """Splines through the points of a cubic are that cubic; a loop says what it is in between."""

    def surface(y, x):
        return 1 + 2 * y - 3 * x * y + 0.5 * y**3 - 0.2 * x**3 * y**2

    control = np.array([[surface(a, b) for b in range(6)] for a in range(5)])
    field = spread(control, shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            expected = surface(4 * i / (shape[0] - 1), 5 * j / (shape[1] - 1))
            assert field[i, j] == pytest.approx(expected, abs=1e-9)


def test_the_control_points_are_passed_through():
    control = np.random.default_rng(0).normal(size=(5, 7))
    np.testing.assert_allclose(spread(control, (9, 19))[::2, ::3], control, atol=1e-12)
