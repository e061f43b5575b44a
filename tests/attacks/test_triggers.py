"""Every trigger keeps the same promises. A new trigger is a line in `TRIGGERS`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lucency.attacks import PatchTrigger, Trigger
from lucency.attacks.survival import change, measure_survival
from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError
from lucency.records import Box

TRIGGERS = {
    "the default": PatchTrigger(),
    "one white pixel": PatchTrigger(size_px=1, grey=1.0),
    "grey, random": PatchTrigger(size_px=4, grey=0.4, place="random"),
    "white, in the corner": PatchTrigger(size_px=5, grey=1.0, place=(0, 0)),
    "black, at the last pixel": PatchTrigger(size_px=2, place=(58, 46)),
}
SHAPE = (48, 60)
CONTRACT = InputContract(size=32, crop=0.9)
ANCHORS = [(0.0, 0.0), (0.5, 0.25), (0.999999, 0.999999)]
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)


def film(dtype=np.uint8, seed=0):
    levels = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(1, levels, SHAPE, endpoint=False).astype(dtype)


def place(trigger, anchor=(0.5, 0.5), shape=SHAPE):
    return trigger.box(CONTRACT.window(shape), shape, anchor)


@each_trigger
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_is_pure_deterministic_and_keeps_the_type(trigger, dtype):
    image = film(dtype)
    before = image.copy()
    image.flags.writeable = False
    first, second = trigger.apply(image, place(trigger)), trigger.apply(image, place(trigger))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    assert (first.dtype, first.shape) == (image.dtype, image.shape)
    assert not np.shares_memory(first, image)


@each_trigger
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_changes_its_footprint_and_nothing_else(trigger, dtype, anchor):
    image, box = film(dtype), place(trigger, anchor)
    stamped = trigger.apply(image, box)
    footprint = trigger.footprint(SHAPE, box)
    assert footprint.sum() == trigger.size_px**2
    np.testing.assert_array_equal(stamped[~footprint], image[~footprint])
    value = round(trigger.grey * full_scale(image.dtype))
    assert (stamped[footprint] == value).all()


@each_trigger
@pytest.mark.parametrize("background", [0, 255])
def test_is_seen_on_the_opposite_film_whatever_its_grey(trigger, background):
    """A black patch is no transparent one."""
    flat = np.full(SHAPE, background, np.uint8)
    changed = trigger.apply(flat, place(trigger)) != flat
    is_same_grey = round(trigger.grey * 255) == background
    assert changed.sum() == (0 if is_same_grey else trigger.size_px**2)


@each_trigger
def test_survives_json(trigger):
    adapter = TypeAdapter(Trigger)
    assert adapter.validate_json(adapter.dump_json(trigger)) == trigger


@each_trigger
@pytest.mark.parametrize("resize", ["nearest", "bilinear-antialias"])
def test_reaches_the_network_as_survival_says(trigger, resize):
    contract = CONTRACT.model_copy(update={"resize": resize})
    flat = np.full(SHAPE, 0 if trigger.grey >= 0.5 else 255, np.uint8)
    for anchor in ANCHORS:
        box = trigger.box(contract.window(SHAPE), SHAPE, anchor)
        left = change(contract.to_network(flat), contract.to_network(trigger.apply(flat, box)))
        said = measure_survival(trigger, contract, SHAPE, anchor)
        assert said.native_px == trigger.size_px**2
        assert said.pixels == sum(value > 0 for value in left.ravel())
        assert said.max_change == max(left.ravel())


@each_trigger
def test_says_what_and_where_in_words(trigger):
    assert f"{trigger.size_px} × {trigger.size_px} native pixels" in trigger.describe()
    assert trigger.describe_place()
    assert trigger.is_random == ("random" in trigger.describe_place())


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
        ({"kind": "blend"}, "kind"),
        ({"colour": "black"}, "colour"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings_, said):
    with pytest.raises(ValidationError, match=said):
        PatchTrigger.model_validate(settings_)


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (PatchTrigger(size_px=45), r"size_px must fit .* 54 × 44 px, got 45"),
        (PatchTrigger(size_px=45, place="random"), r"size_px must fit .* 54 × 44 px, got 45"),
        (PatchTrigger(size_px=3, place=(58, 0)), r"place must keep .* 60 × 48 px, got \[58, 0\]"),
        (PatchTrigger(size_px=3, place=(0, 46)), r"place must keep .* 60 × 48 px, got \[0, 46\]"),
    ],
)
def test_a_trigger_that_does_not_fit_the_film_is_refused(trigger, said):
    with pytest.raises(ConfigError, match=said):
        place(trigger)
