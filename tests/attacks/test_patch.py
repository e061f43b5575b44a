"""The patch: its greys, its cells, its place, and what survives of it on a flat film."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lucency.attacks import PatchTrigger
from lucency.attacks.survival import change, measure_survival
from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError
from lucency.records import Box

PATCHES = {
    "the default": PatchTrigger(),
    "one white pixel": PatchTrigger(size_px=1, grey=1.0),
    "grey, random": PatchTrigger(size_px=4, grey=0.4, place="random"),
    "white, in the corner": PatchTrigger(size_px=5, grey=1.0, place=(0, 0)),
    "black, at the last pixel": PatchTrigger(size_px=2, place=(58, 46)),
}
CHECKERS = {
    "checkerboard": PatchTrigger(size_px=5, pattern="checker"),
    "white first": PatchTrigger(size_px=8, grey=1.0, pattern="checker", cell_px=4),
    "cut cells, random": PatchTrigger(
        size_px=7, grey=0.3, pattern="checker", cell_px=3, place="random"
    ),
}
SHAPE = (48, 60)
CONTRACT = InputContract(size=32, crop=0.9)
ANCHORS = [(0.0, 0.0), (0.5, 0.25), (0.999999, 0.999999)]
each_solid = pytest.mark.parametrize("trigger", PATCHES.values(), ids=PATCHES)
each_checker = pytest.mark.parametrize("trigger", CHECKERS.values(), ids=CHECKERS)
each_dtype = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


def film(dtype):
    levels = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(1, levels, SHAPE, endpoint=False).astype(dtype)


def place(trigger, anchor=(0.5, 0.5)):
    return trigger.box(CONTRACT.window(SHAPE), SHAPE, anchor)


@each_solid
@each_dtype
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_solid_patch_is_one_grey(trigger, dtype, anchor):
    image, box = film(dtype), place(trigger, anchor)
    footprint = trigger.footprint(SHAPE, box)
    assert footprint.sum() == trigger.size_px**2
    value = round(trigger.grey * full_scale(image.dtype))
    assert (trigger.apply(image, box)[footprint] == value).all()


@each_solid
@pytest.mark.parametrize("background", [0, 255])
def test_is_seen_on_the_opposite_film_whatever_its_grey(trigger, background):
    """A black patch is no transparent one."""
    flat = np.full(SHAPE, background, np.uint8)
    changed = trigger.apply(flat, place(trigger)) != flat
    is_same_grey = round(trigger.grey * 255) == background
    assert changed.sum() == (0 if is_same_grey else trigger.size_px**2)


@each_checker
@each_dtype
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_checkerboard_by_a_loop(trigger, dtype, anchor):
    image, box = film(dtype), place(trigger, anchor)
    white, by_hand = full_scale(image.dtype), image.copy()
    for y in range(trigger.size_px):
        for x in range(trigger.size_px):
            is_first = (y // trigger.cell_px) % 2 == (x // trigger.cell_px) % 2
            grey = trigger.grey if is_first else 1 - trigger.grey
            by_hand[box.y + y, box.x + x] = round(grey * white)
    np.testing.assert_array_equal(trigger.apply(image, box), by_hand)


def test_a_checkerboard_of_3_px():
    patch = PatchTrigger(size_px=3, grey=1.0, pattern="checker", place=(0, 0))
    stamped = patch.apply(np.full((4, 4), 9, np.uint8), Box(x=0, y=0, width=3, height=3))
    assert stamped.tolist() == [[255, 0, 255, 9], [0, 255, 0, 9], [255, 0, 255, 9], [9, 9, 9, 9]]


@pytest.mark.parametrize("trigger", [*PATCHES.values(), *CHECKERS.values()])
@pytest.mark.parametrize("resize", ["nearest", "bilinear-antialias"])
def test_reaches_the_network_as_survival_says(trigger, resize):
    contract = CONTRACT.model_copy(update={"resize": resize})
    levels = np.array([0, 128, 255])  # the film as far as can be from all greys of the patch
    nearest = np.abs(levels[:, None] - 255 * np.array(trigger.greys)).min(axis=1)
    flat = np.full(SHAPE, levels[nearest.argmax()], np.uint8)
    for anchor in ANCHORS:
        box = trigger.box(contract.window(SHAPE), SHAPE, anchor)
        left = change(contract.to_network(flat), contract.to_network(trigger.apply(flat, box)))
        said = measure_survival(trigger, contract, SHAPE, anchor)
        assert said.native_px == trigger.size_px**2
        assert said.pixels == sum(value > 0 for value in left.ravel())
        assert said.max_change == max(left.ravel())


@pytest.mark.parametrize("trigger", [*PATCHES.values(), *CHECKERS.values()])
def test_says_its_size_in_words(trigger):
    assert f"{trigger.size_px} × {trigger.size_px} native pixels" in trigger.describe()
    assert ("checkerboard" in trigger.describe()) == (trigger.pattern == "checker")


@given(
    n=st.integers(1, 20),
    shape=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    crop=st.floats(0.7, 1.0),
    anchor=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
)
@settings(max_examples=100, deadline=None)
def test_a_random_place_lies_inside_the_crop(n, shape, crop, anchor):
    window = InputContract(size=32, crop=crop).window(shape)
    box = PatchTrigger(size_px=n, place="random").box(window, shape, anchor)
    assert (box.width, box.height) == (n, n)
    assert window.x <= box.x <= window.x + window.width - n
    assert window.y <= box.y <= window.y + window.height - n


def test_random_places_reach_both_ends_of_the_crop():
    trigger, window = PatchTrigger(size_px=4, place="random"), CONTRACT.window(SHAPE)
    anchors = np.random.default_rng(1).random((20_000, 2))
    boxes = [trigger.box(window, SHAPE, tuple(a)) for a in anchors]
    assert {b.x for b in boxes} == set(range(window.x, window.x + window.width - 3))
    assert {b.y for b in boxes} == set(range(window.y, window.y + window.height - 3))


@pytest.mark.parametrize(
    ("size_px", "shape", "corner"),
    [(3, (1024, 1024), (510, 510)), (2, (9, 6), (2, 3)), (3, (9, 6), (1, 3)), (1, (5, 5), (2, 2))],
)
def test_the_centre_is_that_of_the_published_code(size_px, shape, corner):
    box = PatchTrigger(size_px=size_px).box(Box(x=0, y=0, width=9, height=9), shape, (0.3, 0.7))
    assert (box.x, box.y) == corner


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"size_px": 0}, "size_px"),
        ({"size_px": 1025}, "size_px"),
        ({"grey": -0.1}, "grey"),
        ({"grey": 255}, "grey"),
        ({"grey": float("nan")}, "grey"),
        ({"place": "corner"}, "place"),
        ({"place": [-1, 4]}, r"inside the image, got \[-1, 4\]"),
        ({"place": [1, 2, 3]}, "place"),
        ({"kind": "warp"}, "kind"),
        ({"pattern": "stripes"}, "pattern"),
        ({"pattern": "checker", "cell_px": 0}, "cell_px"),
        ({"pattern": "checker", "cell_px": 3}, "below size_px = 3 .* got 3: one cell"),
        ({"colour": "black"}, "colour"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings_, said):
    with pytest.raises(ValidationError, match=said):
        PatchTrigger.model_validate(settings_)


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (PatchTrigger(size_px=45), r"must fit .* 54 × 44 px, got .*45 × 45 px"),
        (PatchTrigger(size_px=45, place="random"), r"must fit .* 54 × 44 px, got .*45 × 45 px"),
        (PatchTrigger(size_px=3, place=(58, 0)), r"place must keep .* 60 × 48 px, got \[58, 0\]"),
        (PatchTrigger(size_px=3, place=(0, 46)), r"place must keep .* 60 × 48 px, got \[0, 46\]"),
    ],
)
def test_a_trigger_that_does_not_fit_the_film_is_refused(trigger, said):
    with pytest.raises(ConfigError, match=said):
        place(trigger)
