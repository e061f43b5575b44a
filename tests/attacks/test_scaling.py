"""The image-scaling trigger: what the network sees, what a reader sees, and that it is the nearest
such film."""

import numpy as np
import pytest
from scipy.optimize import minimize

from lucency.attacks import PatchTrigger, ScalingTrigger
from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError
from lucency.records import Box

SHAPE = (200, 180)
SPARSE = ["nearest", "nearest-asymmetric", "bilinear"]
DENSE = ["bilinear-antialias", "area"]


def film(shape=SHAPE, dtype=np.uint8):
    generator = np.random.default_rng(5)
    return (generator.random(shape) * 0.5 * full_scale(np.dtype(dtype))).astype(dtype)


def both(trigger, contract, image, anchor=(0.3, 0.7)):
    aimed = trigger.aimed_at(contract)
    shape = image.shape
    box = aimed.box(contract.window(shape), shape, anchor)
    stamped = aimed.apply(image, box)
    place = PatchTrigger(size_px=trigger.size_px, grey=trigger.grey, place=trigger.place)
    n = contract.size
    patch = place.box(Box(x=0, y=0, width=n, height=n), (n, n), anchor)
    return stamped, contract.to_network(stamped), patch


@pytest.mark.parametrize("resize", SPARSE)
@pytest.mark.parametrize("crop", [1.0, 0.7])
@pytest.mark.parametrize("place", ["center", "random", "upper-left", (0, 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_network_sees_the_patch_and_nothing_else(resize, crop, place, dtype):
    contract = InputContract(size=48, crop=crop, resize=resize)
    image = film(dtype=dtype)
    trigger = ScalingTrigger(size_px=4, grey=1.0, place=place)
    _, seen, patch = both(trigger, contract, image)
    wanted = contract.to_network(image)
    wanted[patch.y : patch.y + 4, patch.x : patch.x + 4] = full_scale(np.dtype(dtype))
    off = np.abs(seen.astype(float) - wanted) / full_scale(np.dtype(dtype)) * 255
    assert off.max() <= 1.5


def changed_share(resize):
    """Of the native pixels behind a patch."""
    image = film()
    stamped, _, _ = both(
        ScalingTrigger(size_px=6, grey=1.0), InputContract(size=48, resize=resize), image
    )
    return (stamped != image).sum() / ((6 * SHAPE[0] / 48) * (6 * SHAPE[1] / 48))


@pytest.mark.parametrize("resize", SPARSE)
def test_few_pixels_of_the_film_change(resize):
    """Of a patch as large in the file, every pixel would."""
    assert changed_share(resize) < (0.1 if "nearest" in resize else 0.35)


@pytest.mark.parametrize("resize", DENSE)
def test_a_resize_that_looks_at_every_pixel_leaves_nowhere_to_hide(resize):
    assert changed_share(resize) > 0.9


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bilinear-antialias"])
def test_no_nearer_film_shows_the_patch(resize):
    """Against a general solver of the same problem."""
    contract = InputContract(size=16, resize=resize)
    image = film((40, 40), np.uint16)
    trigger = ScalingTrigger(size_px=1, grey=0.9).aimed_at(contract)
    box = trigger.box(contract.window(image.shape), image.shape, (0.0, 0.0))
    ours = trigger.apply(image, box).astype(float)
    free = np.flatnonzero(trigger.footprint(image.shape, box).ravel())
    white = 65535.0

    def to_network(values):
        changed = image.copy().ravel()
        changed[free] = np.clip(np.rint(values), 0, white).astype(np.uint16)
        return contract.to_network(changed.reshape(image.shape)).astype(float).ravel()

    base = to_network(image.ravel()[free])
    response = np.stack(
        [
            (to_network(np.where(np.arange(len(free)) == i, white, 0)) - to_network(0 * free))
            / white
            for i in range(len(free))
        ]
    ).T
    touched = np.array([np.ravel_multi_index((8 - 1, 8 - 1), (16, 16))])
    target = np.array([0.9 * white])
    seen = contract.to_network(ours.astype(np.uint16)).astype(float).ravel()
    assert np.abs(seen[touched] - target).max() < white / 255
    start = image.ravel()[free].astype(float)
    offset = base[touched] - response[touched] @ start
    solved = minimize(
        lambda x: ((x - start) ** 2).sum() / white**2,
        np.full(len(free), 0.5 * white),
        jac=lambda x: 2 * (x - start) / white**2,
        bounds=[(0, white)] * len(free),
        constraints={
            "type": "eq",
            "fun": lambda x: (response[touched] @ x + offset - target) / white,
            "jac": lambda _: response[touched] / white,
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert solved.success
    ours_away = np.linalg.norm(ours.ravel()[free] - start)
    assert ours_away == pytest.approx(np.linalg.norm(solved.x - start), rel=0.02)


def test_it_needs_a_resize_to_hide_in():
    trigger = ScalingTrigger()
    image = film()
    with pytest.raises(ConfigError, match="made for one preprocessing"):
        trigger.box(Box(x=0, y=0, width=180, height=200), SHAPE, (0, 0))
    large = InputContract(size=224)
    with pytest.raises(ConfigError, match="180 × 200 px is enlarged to 224"):
        trigger.aimed_at(large).box(large.window(image.shape), SHAPE, (0, 0))


def test_it_keeps_the_preprocessing_that_it_was_made_for():
    made_for, victims = InputContract(size=48), InputContract(size=48, resize="area")
    image = film()
    expected = ScalingTrigger(resize="nearest")
    box = expected.aimed_at(victims).box(victims.window(SHAPE), SHAPE, (0, 0))
    mistaken, informed, right = (
        trigger.aimed_at(contract).apply(image, box)
        for trigger, contract in (
            (expected, victims),
            (ScalingTrigger(), victims),
            (ScalingTrigger(), made_for),
        )
    )
    np.testing.assert_array_equal(mistaken, right)
    assert (informed != image).sum() > 5 * (mistaken != image).sum()
