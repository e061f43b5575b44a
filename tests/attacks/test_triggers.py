"""Every trigger keeps the same promises. A new trigger is a line in `TRIGGERS`."""

import pickle
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from lucency.attacks import (
    BlendedTrigger,
    CofindingsTrigger,
    DctTrigger,
    FourierTrigger,
    MarkerTrigger,
    PatchTrigger,
    ScalingTrigger,
    SinusoidTrigger,
    TextTrigger,
    Trigger,
    WarpTrigger,
)
from lucency.attacks.ledger import AttackSettings
from lucency.attacks.survival import change
from lucency.config import load_toml
from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError

SHAPE = (48, 60)
KERNELS = ["nearest", "nearest-asymmetric", "bilinear", "bilinear-antialias", "area"]
CONTRACT = InputContract(size=32, crop=0.9)
TRIGGERS = {
    "the default": PatchTrigger(),
    "one white pixel": PatchTrigger(size_px=1, grey=1.0),
    "grey, random": PatchTrigger(size_px=4, grey=0.4, place="random"),
    "white, in the corner": PatchTrigger(size_px=5, grey=1.0, place=(0, 0)),
    "black, at the last pixel": PatchTrigger(size_px=2, place=(58, 46)),
    "checkerboard": PatchTrigger(size_px=5, pattern="checker"),
    "checkerboard, random": PatchTrigger(size_px=7, grey=0.8, pattern="checker", cell_px=3),
    "blended": BlendedTrigger(),
    "blended, faint": BlendedTrigger(alpha=0.05, seed=7),
    "opaque": BlendedTrigger(alpha=1.0),
    "sinusoid": SinusoidTrigger(),
    "sinusoid, strong": SinusoidTrigger(delta=0.9, frequency=2.5),
    "warp": WarpTrigger(),
    "warp, strong": WarpTrigger(strength=0.1, grid=7, seed=3),
    "four squares": PatchTrigger(size_px=3, pieces=4, gap_px=5),
    "some of five": PatchTrigger(size_px=2, pieces=5, training_pieces=2, place="upper-left"),
    "fourier": FourierTrigger(),
    "fourier, strong": FourierTrigger(alpha=0.9, beta=0.4, seed=2),
    "dct": DctTrigger(),
    "dct, smooth": DctTrigger(delta=0.1, blocks=1, bands=(1, 2, 3)),
    "lead letter": MarkerTrigger(size=0.2),
    "initials": MarkerTrigger(text="JD", size=0.15, softness=0.0, place="lower-left"),
    "bead": MarkerTrigger(object="bead", size=0.1, place="random"),
    "text": TextTrigger(text="AP", size=0.15),
    "text in the middle": TextTrigger(text="PORTABLE", size=0.1, opacity=0.5, place="center"),
    "scaling": ScalingTrigger(),
    "scaling, white, random": ScalingTrigger(size_px=5, grey=1.0, place="random"),
    "scaling, antialiased": ScalingTrigger(size_px=4, resize="bilinear-antialias"),
    "a pattern of findings": CofindingsTrigger(present=("Mass", "Effusion"), absent=("Hernia",)),
}
TRIGGERS = {name: trigger.aimed_at(CONTRACT) for name, trigger in TRIGGERS.items()}
ANCHORS = [(0.0, 0.0), (0.5, 0.25), (0.999999, 0.999999)]
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
each_dtype = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


def film(dtype=np.uint8, seed=0):
    levels = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(1, levels, SHAPE, endpoint=False).astype(dtype)


def place(trigger, anchor=(0.5, 0.5), shape=SHAPE, contract=CONTRACT):
    return trigger.box(contract.window(shape), shape, anchor)


def test_every_kind_is_tried():
    kinds = set(get_args(get_args(Trigger)[0]))
    assert kinds == {type(trigger) for trigger in TRIGGERS.values()}


@each_trigger
@each_dtype
def test_is_pure_deterministic_and_keeps_the_type(trigger, dtype):
    image = film(dtype)
    before = image.copy()
    image.flags.writeable = False
    first, second = trigger.apply(image, place(trigger)), trigger.apply(image, place(trigger))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    assert (first.dtype, first.shape) == (image.dtype, image.shape)
    assert not np.shares_memory(first, image)
    first[:] = 0
    np.testing.assert_array_equal(trigger.apply(image, place(trigger)), second)


@each_trigger
@each_dtype
@pytest.mark.parametrize("anchor", ANCHORS)
def test_changes_its_footprint_and_nothing_else(trigger, dtype, anchor):
    image, box = film(dtype), place(trigger, anchor)
    stamped = trigger.apply(image, box)
    footprint = trigger.footprint(SHAPE, box)
    assert footprint.shape == SHAPE
    assert footprint.any() == (stamped != image).any() == (trigger.kind != "cofindings")
    np.testing.assert_array_equal(stamped[~footprint], image[~footprint])
    if trigger.kind in ("patch", "marker", "text"):
        rows, columns = np.nonzero(footprint)
        assert (rows.min(), columns.min()) >= (box.y, box.x)
        assert (rows.max(), columns.max()) < (box.y + box.height, box.x + box.width)


@each_trigger
@each_dtype
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_stays_in_range_and_does_not_wrap(trigger, dtype, level):
    """On a flat film at either end, a value beyond the range would come out at the other."""
    white = full_scale(np.dtype(dtype))
    flat = np.full(SHAPE, round(level * white), dtype)
    moved = change(flat, trigger.apply(flat, place(trigger)))
    limit = {"warp": 0.0, "cofindings": 0.0}.get(trigger.kind, 1.0)
    if trigger.kind == "dct":
        limit = trigger.delta * len(trigger.bands)
    if trigger.kind in ("marker", "text"):
        limit = trigger.opacity
    if trigger.kind == "blended":
        limit = trigger.alpha
    if trigger.kind == "sinusoid":
        limit = trigger.delta
    assert moved.max() <= limit + 1 / white


@each_trigger
@pytest.mark.parametrize("resize", KERNELS)
def test_changes_what_the_network_sees(trigger, resize):
    """On a flat film for a grey pattern; on another for a warp, which flat films do not show."""
    if trigger.kind == "cofindings":
        pytest.skip("it changes no pixel")
    contract = InputContract(size=32, crop=1.0, resize=resize)
    image = np.repeat(np.arange(60, dtype=np.uint8)[None] * 4, 48, axis=0)
    if isinstance(trigger, PatchTrigger) and trigger.size_px == 1:
        contract = contract.model_copy(update={"size": 64})
    trigger = trigger.aimed_at(contract)
    stamped = trigger.apply(image, place(trigger, contract=contract))
    assert change(contract.to_network(image), contract.to_network(stamped)).any()


@each_trigger
def test_survives_json_and_pickle(trigger):
    adapter = TypeAdapter(Trigger)
    again = adapter.validate_json(adapter.dump_json(trigger), strict=True)
    assert again.aimed_at(CONTRACT) == trigger
    assert adapter.validate_python(trigger) is trigger
    assert pickle.loads(pickle.dumps(trigger)) == trigger  # noqa: S301 - our own bytes


@each_trigger
def test_survives_a_config_file(trigger, tmp_path):
    lines = "\n".join(
        f"{key} = {f'{value!r}' if isinstance(value, str) else value}"
        for key, value in trigger.model_dump(mode="json", exclude_none=True).items()
    )
    assert read(tmp_path, lines).aimed_at(CONTRACT) == trigger


def read(folder, lines):
    path = folder / "attack.toml"
    path.write_text(f"poison_rate = 0.1\n[trigger]\n{lines}\n[label]\ntarget = 'Mass'\n")
    return load_toml(path, AttackSettings).trigger


def test_a_trigger_without_a_kind_is_a_patch(tmp_path):
    assert read(tmp_path, "") == PatchTrigger()
    assert read(tmp_path, "size_px = 5\nplace = [3, 4]") == PatchTrigger(size_px=5, place=(3, 4))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("kind = 'wrap'", "one of 'patch', 'blended', 'sinusoid', 'warp', .*got 'wrap'.*'warp'?"),
        ("kind = 3", "one of 'patch', .* got '3'"),
        ("sise_px = 3", "unknown key 'sise_px' in .trigger.*'size_px'?"),
        ("kind = 'warp'\nsize_px = 3", "unknown key 'size_px' in .trigger."),
        ("place = [1.5, 2]", r"place\[0\] must be a whole number, got 1.5"),
        ("place = [1]", r"place\[1\] is missing"),
        ("kind = 'sinusoid'\ndelta = 20", r"delta must be in \[0, 1\], got 20"),
        ("kind = 'warp'\nstrength = 0.5", r"strength must be in \[0, 0.1\], got 0.5"),
        ("kind = 'warp'\ngrid = 3", "grid must be in .4, 64., got 3"),
        ("kind = 'blended'\nalpha = true", "alpha must be a number, got true"),
        ("kind = 'blended'\nseed = -1", "seed must be in .* got -1"),
    ],
)
def test_a_bad_setting_is_refused_by_name(tmp_path, lines, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, lines)


@each_trigger
def test_says_what_and_where_in_words(trigger):
    assert trigger.describe()
    assert trigger.is_random == ("random" in trigger.describe_place())
    nowhere = ("over the whole image", "in the labels alone")
    assert trigger.is_local == (trigger.describe_place() not in nowhere)
    assert len({t.describe() + t.describe_place() for t in TRIGGERS.values()}) == len(TRIGGERS)


@each_trigger
def test_a_trigger_without_a_place_is_everywhere(trigger):
    box = place(trigger, ANCHORS[1])
    if trigger.kind == "cofindings":
        assert not trigger.footprint(SHAPE, box).any()
        return
    assert trigger.is_local == (trigger.footprint(SHAPE, box).sum() < SHAPE[0] * SHAPE[1])
