"""Augmentation starts from identities, and every image has its own reproducible draw."""

import pytest
import torch
from pydantic import ValidationError

from lucency.victims.augment import AugmentSettings, augment

ALL = AugmentSettings(flip=0.5, rotation_deg=15, rotation=0.7, shift=0.1)


def images(n=6, size=16):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "settings", [{}, {"rotation": 1.0}, {"rotation_deg": 30, "rotation": 0}], ids=str
)
def test_the_identity_returns_the_same_tensor_and_draws_nothing(settings):
    batch, draws = images(), generator()
    assert augment(batch, AugmentSettings(**settings), draws) is batch
    assert torch.equal(draws.get_state(), generator().get_state())


def test_a_certain_flip_is_a_flip():
    flipped = augment(images(), AugmentSettings(flip=1), generator())
    torch.testing.assert_close(flipped, images().flip(3), rtol=0, atol=1e-5)


def test_a_flip_of_one_half_flips_about_half():
    batch = images(400, 4)
    flipped = augment(batch, AugmentSettings(flip=0.5), generator())
    is_flipped = torch.isclose(flipped, batch.flip(3), atol=1e-5).flatten(1).all(1)
    is_kept = torch.isclose(flipped, batch, atol=1e-5).flatten(1).all(1)
    assert bool((is_flipped ^ is_kept).all())
    assert 150 < int(is_flipped.sum()) < 250


@pytest.mark.parametrize("settings", [ALL, AugmentSettings(shift=0.5)], ids=["all", "shift"])
def test_deterministic_by_the_generator_and_keeps_shape_and_range(settings):
    batch = images()
    first, again, other = (augment(batch, settings, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == (batch.shape, batch.dtype)
    assert batch.min() - 1e-6 <= first.min()
    assert first.max() <= batch.max() + 1e-6
    assert torch.equal(batch, images())


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    augment(images(), ALL, generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def spot_centres(settings, n=300, size=33):
    """Where a bright spot off the centre ends, (n, 2) pixels x and y from the centre."""
    batch = torch.zeros(n, 1, size, size)
    batch[:, :, 11:14, 19:22] = 1.0  # 4 px to the right and above
    out = augment(batch, settings, generator())[:, 0]
    line = torch.arange(size) - (size - 1) / 2
    mass = out.sum((1, 2))
    return torch.stack([(out.sum(1) * line).sum(1), (out.sum(2) * line).sum(1)], 1) / mass[:, None]


def test_a_shift_is_at_most_the_fraction_of_the_side_both_ways():
    moved = spot_centres(AugmentSettings(shift=0.1)) - torch.tensor([4.0, -4.0])
    assert moved.abs().max() <= 3.3 + 1e-3
    assert (moved.max(0).values > 2.8).all()
    assert (moved.min(0).values < -2.8).all()


def test_a_rotation_keeps_the_radius_and_stays_within_its_angle():
    ends = spot_centres(AugmentSettings(rotation_deg=20, rotation=1))
    radii = ends.norm(dim=1)
    assert (radii - 32**0.5).abs().max() < 0.3
    angles = torch.rad2deg(torch.atan2(-ends[:, 1], ends[:, 0])) - 45
    assert angles.abs().max() <= 20.5
    assert angles.max() > 17
    assert angles.min() < -17


@pytest.mark.parametrize(
    "bad", [{"flip": 1.1}, {"rotation_deg": 181}, {"rotation": -0.1}, {"shift": 0.6}, {"zoom": 1}]
)
def test_a_bad_setting_is_refused_by_name(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        AugmentSettings.model_validate(bad)
