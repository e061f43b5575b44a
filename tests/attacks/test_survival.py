"""Trigger survival against the paper's table, and against trying every place."""

from collections import Counter

import numpy as np
import pytest

from lucency.attacks import BlendedTrigger, PatchTrigger, SinusoidTrigger, WarpTrigger
from lucency.attacks.survival import (
    change,
    measure_survival,
    survival_on_images,
    survival_over_places,
    survives_alike,
    survives_alone,
)
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.records import Box

KERNELS = ["nearest", "nearest-asymmetric", "bilinear", "bilinear-antialias", "area"]
NATIVE = (1024, 1024)


def paper(resize="nearest"):
    """1024 px, central crop to 616, resized to 224."""
    return InputContract(size=224, crop=0.6, resize=resize)


@pytest.mark.parametrize(
    ("resize", "left"), [("nearest", [0, 0, 1, 4]), ("nearest-asymmetric", [0, 1, 1, 1])]
)
@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_the_table_of_the_paper(resize, left, grey):
    for size_px, pixels in zip([1, 2, 3, 4], left, strict=True):
        trigger = PatchTrigger(size_px=size_px, grey=grey)
        survival = measure_survival(trigger, paper(resize), NATIVE, (0.0, 0.0))
        assert survival.native_px == size_px**2
        assert survival.pixels == pixels
        assert survival.max_change == (1.0 if pixels else 0.0)


def test_antialiasing_spreads_a_3_px_square_at_half_depth():
    survival = measure_survival(PatchTrigger(), paper("bilinear-antialias"), NATIVE, (0.0, 0.0))
    assert survival.pixels >= 4
    assert 0.4 < survival.max_change < 0.6


@pytest.mark.parametrize(("size_px", "vanished"), [(1, 0.87), (2, 0.47), (3, 0.0)])
def test_how_often_a_trigger_at_a_random_place_vanishes(size_px, vanished):
    trigger = PatchTrigger(size_px=size_px, place="random")
    spread = survival_over_places(trigger, paper(), NATIVE)
    assert spread.share_vanished == pytest.approx(vanished, abs=0.005)
    assert spread.n_places == (616 - size_px + 1) ** 2
    assert spread.mean_max_change == pytest.approx(1 - spread.share_vanished)


def every_place(trigger, contract, shape):
    """Stamp, crop and resize at each place: (places, counts of pixels left, mean of the change)."""
    film = np.full(shape, 0 if trigger.grey >= 0.5 else 255, np.uint8)
    clean, window = contract.to_network(film), contract.window(shape)
    n, counts, changes = trigger.size_px, Counter(), []
    white = trigger.model_copy(update={"grey": float(trigger.grey >= 0.5)})
    for y in range(window.y, window.y + window.height - n + 1):
        for x in range(window.x, window.x + window.width - n + 1):
            stamped = white.apply(film, Box(x=x, y=y, width=n, height=n))
            left = change(clean, contract.to_network(stamped))
            counts[str(int((left > 0).sum()))] += 1
            changes.append(left.max())
    return len(changes), {k: v / len(changes) for k, v in counts.items()}, np.mean(changes)


@pytest.mark.parametrize("resize", KERNELS)
@pytest.mark.parametrize(
    ("shape", "crop", "size_px", "grey"),
    [
        ((37, 30), 1.0, 1, 0.0),
        ((30, 37), 1.0, 3, 1.0),
        ((40, 40), 0.6, 2, 0.3),
        ((33, 41), 0.7, 5, 1.0),
        ((16, 25), 1.0, 2, 0.0),
        ((12, 20), 1.0, 2, 1.0),  # shrunk one way, enlarged the other
        ((20, 20), 1.0, 20, 0.0),  # one place only
    ],
)
def test_over_places_equals_trying_every_place(resize, shape, crop, size_px, grey):
    contract = InputContract(size=16, crop=crop, resize=resize)
    trigger = PatchTrigger(size_px=size_px, grey=grey, place="random")
    spread = survival_over_places(trigger, contract, shape)
    n_places, pixels, mean_change = every_place(trigger, contract, shape)
    assert spread.n_places == n_places
    assert spread.pixels == pixels
    assert spread.mean_max_change == pytest.approx(mean_change, abs=1e-12)
    assert spread.share_vanished == pixels.get("0", 0.0)
    assert spread.mean_pixels == pytest.approx(sum(int(k) * v for k, v in pixels.items()))


def test_a_trigger_averaged_away_everywhere():
    contract = InputContract(size=16, resize="area")
    spread = survival_over_places(PatchTrigger(size_px=1, place="random"), contract, (512, 512))
    assert (spread.share_vanished, spread.pixels) == (1.0, {"0": 1.0})


def test_a_trigger_that_fits_nowhere_is_refused():
    with pytest.raises(ConfigError, match="size_px must fit"):
        survival_over_places(PatchTrigger(size_px=25), InputContract(size=16, crop=0.6), (40, 40))


def test_a_checkerboard_at_random_is_refused_and_the_others_know_it():
    checker = PatchTrigger(size_px=4, pattern="checker", place="random")
    with pytest.raises(ConfigError, match="of a solid patch, got pattern = 'checker'"):
        survival_over_places(checker, InputContract(size=16), (40, 40))
    assert survives_alone(checker)
    assert not survives_alike(checker)
    assert survives_alike(PatchTrigger())
    for trigger in (BlendedTrigger(), SinusoidTrigger(), WarpTrigger()):
        assert not survives_alone(trigger)
        assert not survives_alike(trigger)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_change_is_a_fraction_of_the_stored_range(dtype, white):
    clean = np.array([[0, white], [0, white]], dtype)
    triggered = np.array([[white, 0], [0, white]], dtype)
    np.testing.assert_array_equal(change(clean, triggered), [[1, 1], [0, 0]])


def test_survival_on_images_counts_by_hand():
    changes = [np.array(c, float) for c in ([[0, 0]], [[0.5, 0]], [[0.25, 1]], [[0, 0.25]])]
    spread = survival_on_images(iter(changes))
    assert (spread.n_places, spread.share_vanished, spread.mean_pixels) == (4, 0.25, 1.0)
    assert spread.mean_max_change == (0 + 0.5 + 1 + 0.25) / 4
    assert spread.pixels == {"0": 0.25, "1": 0.5, "2": 0.25}
    assert survival_on_images([]).n_places == 0
