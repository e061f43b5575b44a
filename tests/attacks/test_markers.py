"""Lead markers and burned-in text: where they stand, how they look, and that they hide nothing."""

import numpy as np
import pytest

from lucency.attacks import MarkerTrigger, TextTrigger
from lucency.attacks.lettering import disc, letters
from lucency.attacks.placed import JITTER, MARGIN
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError

SHAPE = (400, 360)
CONTRACT = InputContract(size=64, crop=0.8)
CORNERS = ["upper-left", "upper-right", "lower-left", "lower-right"]


def film(level=60, dtype=np.uint8):
    return np.full(SHAPE, level, dtype)


def stamped(trigger, anchor=(0.5, 0.5), image=None):
    image = film() if image is None else image
    box = trigger.box(CONTRACT.window(SHAPE), SHAPE, anchor)
    return trigger.apply(image, box), box


def test_letters_differ_and_read_as_drawn():
    left, right = letters("L", 40, 0.0), letters("R", 40, 0.0)
    assert left.shape[0] == right.shape[0] == 40
    # An L is a stem on the left and a foot below.
    assert left[:, : left.shape[1] // 5].mean() > 0.8
    assert left[-3:].mean() > 0.8
    assert left[5:20, left.shape[1] // 2 :].max() < 0.1
    assert letters("LR", 40, 0.0).shape[1] > left.shape[1] + 20


def test_soft_edges_have_more_greys():
    sharp, soft = (letters("R", 60, s) for s in (0.0, 0.05))
    between = [((m > 0.1) & (m < 0.9)).mean() for m in (sharp, soft)]
    assert between[1] > 2 * between[0]
    assert soft.max() == 1.0


def test_a_bead_is_round():
    bead = disc(30, 0.0)
    assert bead.sum() == pytest.approx(np.pi * 15**2, rel=0.01)
    np.testing.assert_allclose(bead, bead.T)
    np.testing.assert_allclose(bead, bead[::-1])


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("anchor", [(0.0, 0.0), (0.999, 0.999)])
def test_a_corner_is_inside_the_crop_and_near_its_edge(corner, anchor):
    trigger = MarkerTrigger(text="JD", place=corner)
    window = CONTRACT.window(SHAPE)
    _, box = stamped(trigger, anchor)
    vertical, horizontal = corner.split("-")
    above, left = box.y - window.y, box.x - window.x
    below = window.height - above - box.height
    right = window.width - left - box.width
    near = (above if vertical == "upper" else below) / window.height
    side = (left if horizontal == "left" else right) / window.width
    for margin in (near, side):
        assert MARGIN - 0.01 <= margin <= MARGIN + JITTER


@pytest.mark.parametrize("trigger", [MarkerTrigger(size=0.05), TextTrigger(text="AP", size=0.05)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_only_brightens_and_by_no_more_than_its_opacity(trigger, dtype):
    white = np.iinfo(dtype).max
    image = np.full(SHAPE, white // 4, dtype)
    after, _ = stamped(trigger, image=image)
    risen = (after.astype(float) - image) / (white - white // 4)
    assert risen.min() == 0
    assert risen.max() == pytest.approx(trigger.opacity, abs=0.01)


def test_its_size_is_a_share_of_the_film():
    for shape in (SHAPE, (200, 180)):
        assert MarkerTrigger(size=0.1).extent(shape)[0] == shape[1] // 10


def test_text_that_does_not_fit_is_refused():
    trigger = TextTrigger(text="PORTABLE CHEST ERECT", size=0.2)
    with pytest.raises(ConfigError, match=r"must fit .* 288 × 320 px, got [0-9]+ × 72 px"):
        stamped(trigger)
