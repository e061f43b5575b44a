"""The input contract: crop, five resize kernels, and boxes there and back."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import interpolate

from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import DataError
from lucency.records import Box

KERNELS = ["nearest", "nearest-asymmetric", "bilinear", "bilinear-antialias", "area"]
SHAPES = [(16, 16), (40, 40), (41, 33), (64, 48), (100, 37), (20, 90), (10, 12), (1, 7)]
SIZES = [16, 24, 33]


def film(shape, dtype=np.uint8, seed=0):
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, endpoint=True).astype(dtype)


def torch_resize(image, size, **how):
    tensor = torch.from_numpy(image.astype(np.float64))[None, None]
    return interpolate(tensor, (size, size), **how)[0, 0].numpy()


# --- kernels --------------------------------------------------------------------------------------


def nearest(image, size, half):
    """Pixel by pixel, in fractions: floor((i + ½)·n/size), or floor(i·n/size)."""
    h, w = image.shape
    out = np.zeros((size, size), image.dtype)
    for i, j in itertools.product(range(size), repeat=2):
        twice = (2 * i + half, 2 * j + half)
        out[i, j] = image[twice[0] * h // (2 * size), twice[1] * w // (2 * size)]
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("resize", "half"), [("nearest", 1), ("nearest-asymmetric", 0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_takes_the_pixel_of_the_definition(shape, resize, half, dtype):
    for size in SIZES:
        image = film(shape, dtype)
        out = InputContract(size=size, resize=resize).to_network(image)
        np.testing.assert_array_equal(out, nearest(image, size, half))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("resize", "how"),
    [
        ("nearest", {"mode": "nearest-exact"}),
        ("nearest-asymmetric", {"mode": "nearest"}),
        ("bilinear", {"mode": "bilinear", "align_corners": False}),
        ("bilinear-antialias", {"mode": "bilinear", "align_corners": False, "antialias": True}),
    ],
)
@pytest.mark.parametrize("shape", [(44, 55), (66, 77), (16, 88), (13, 99)])
def test_kernels_agree_with_torch(shape, resize, how, dtype):
    """Within a grey level, for rounding. Sizes without a sample on the border of two pixels, where
    float arithmetic decides which neighbour torch takes."""
    image = film(shape, dtype)
    out = InputContract(size=16, resize=resize).to_network(image)
    expected = torch_resize(image, 16, **how)
    allowed = 0 if "nearest" in resize else 1
    assert out.dtype == dtype
    assert np.abs(out - expected).max() <= allowed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(32, 32), (48, 80), (16, 64)])
def test_area_agrees_with_torch_where_boxes_are_whole(shape, dtype):
    image = film(shape, dtype)
    out = InputContract(size=16, resize="area").to_network(image)
    assert np.abs(out - torch_resize(image, 16, mode="area")).max() <= 1


@pytest.mark.parametrize("shape", [(41, 33), (100, 37), (50, 70)])
def test_area_is_the_mean_of_the_pixels_whose_centres_lie_in_the_box(shape):
    image = film(shape)

    def members(i, n):
        low, high = i * n / 16, (i + 1) * n / 16
        return [k for k in range(n) if low < k + 0.5 <= high]

    out = InputContract(size=16, resize="area").to_network(image)
    for i, j in itertools.product(range(16), repeat=2):
        box = image[np.ix_(members(i, shape[0]), members(j, shape[1]))]
        assert abs(out[i, j] - box.mean()) <= 1


@pytest.mark.parametrize("resize", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_flat_films_stay_flat_and_equal_sizes_stay_equal(resize, dtype):
    contract = InputContract(size=20, resize=resize)
    white = full_scale(np.dtype(dtype))
    for level, shape in itertools.product([0, 1, white // 3, white], SHAPES):
        out = contract.to_network(np.full(shape, level, dtype))
        assert (out == level).all()
        assert (out.shape, out.dtype) == ((20, 20), dtype)
    image = film((20, 20), dtype)
    out = contract.to_network(image)
    np.testing.assert_array_equal(out, image)
    assert not np.shares_memory(out, image)


@pytest.mark.parametrize("resize", KERNELS)
def test_the_crop_is_cut_before_the_resize(resize):
    image = film((70, 90))
    cropped = InputContract(size=16, crop=0.6, resize=resize)
    window = cropped.window(image.shape)
    inner = image[window.y :, window.x :][: window.height, : window.width].copy()
    whole = InputContract(size=16, resize=resize)
    np.testing.assert_array_equal(cropped.to_network(image), whole.to_network(inner))


@pytest.mark.parametrize(
    ("shape", "crop", "box"),
    [
        ((1024, 1024), 0.6, (204, 204, 616, 616)),  # the published size
        ((1024, 1024), 1.0, (0, 0, 1024, 1024)),
        ((100, 200), 0.5, (50, 25, 100, 50)),
        ((7, 5), 0.5, (1, 1, 3, 5)),
        ((1, 1), 0.01, (0, 0, 1, 1)),
    ],
)
def test_window(shape, crop, box):
    window = InputContract(crop=crop).window(shape)
    assert (window.x, window.y, window.width, window.height) == box


@given(shape=st.tuples(st.integers(1, 3000), st.integers(1, 3000)), crop=st.floats(0.001, 1))
@settings(max_examples=200, deadline=None)
def test_a_window_is_centred_inside_and_not_smaller_than_asked(shape, crop):
    window = InputContract(crop=crop).window(shape)
    for start, length, whole in (
        (window.x, window.width, shape[1]),
        (window.y, window.height, shape[0]),
    ):
        assert start >= 0
        assert length >= 1
        assert whole - (start + length) == start
        assert crop * whole - 1e-6 <= length < crop * whole + 2


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros(4, np.uint8), np.zeros((4, 4), int)],
)
def test_anything_but_a_grey_film_is_refused(image):
    with pytest.raises(DataError, match="2-D uint8 or uint16"):
        InputContract().to_network(image)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"size": 15}, "size"),
        ({"crop": 0}, "crop"),
        ({"crop": 1.1}, "crop"),
        ({"resize": "bicubic"}, "resize"),
        ({"channels": 2}, "channels"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"std": (float("nan"),)}, "std"),
        ({"mean": (0.1, 0.2)}, "mean must have 1 value"),
        ({"channels": 3, "mean": (0.1, 0.2)}, "mean must have 1 value or one for each of the 3"),
        ({"mean": ()}, "mean must have 1 value"),
    ],
)
def test_a_bad_contract_is_refused_by_name(bad, said):
    with pytest.raises(ValidationError, match=said):
        InputContract.model_validate(bad)


def test_a_contract_survives_json():
    contract = InputContract(channels=3, size=64, crop=0.6, resize="area", mean=(0.1, 0.2, 0.3))
    assert InputContract.model_validate_json(contract.model_dump_json()) == contract


# --- boxes ----------------------------------------------------------------------------------------


def overlapped(start, length, old, new):
    """Which of `new` equal cells of an axis a span of its `old` cells overlaps."""
    a, b = start * new, (start + length) * new
    return [k for k in range(new) if a < (k + 1) * old and b > k * old]


boxes = st.tuples(
    st.tuples(st.integers(20, 80), st.integers(20, 80)),  # film
    st.integers(16, 48),  # network
    st.sampled_from([0.5, 0.6, 0.9, 1.0]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 20),
    st.integers(1, 20),
)


def box_inside(width, height, fx, fy, w, h):
    w, h = min(w, width), min(h, height)
    return Box(x=int(fx * (width - w + 1)), y=int(fy * (height - h + 1)), width=w, height=h)


@given(boxes)
@settings(max_examples=300, deadline=None)
def test_to_network_box_is_what_the_native_box_overlaps(drawn):
    shape, size, crop, fx, fy, w, h = drawn
    contract = InputContract(size=size, crop=crop)
    window = contract.window(shape)
    native = box_inside(shape[1], shape[0], fx, fy, w, h)
    columns = overlapped(native.x - window.x, native.width, window.width, size)
    rows = overlapped(native.y - window.y, native.height, window.height, size)
    box = contract.to_network_box(native, shape)
    if not columns or not rows:
        assert box is None
    else:
        assert (box.x, box.x + box.width - 1) == (columns[0], columns[-1])
        assert (box.y, box.y + box.height - 1) == (rows[0], rows[-1])


@given(boxes)
@settings(max_examples=300, deadline=None)
def test_to_native_box_is_what_lies_behind_and_leads_back(drawn):
    shape, size, crop, fx, fy, w, h = drawn
    contract = InputContract(size=size, crop=crop)
    window = contract.window(shape)
    network = box_inside(size, size, fx, fy, w, h)
    native = contract.to_native_box(network, shape)
    columns = overlapped(network.x, network.width, size, window.width)
    rows = overlapped(network.y, network.height, size, window.height)
    assert (native.x - window.x, native.width) == (columns[0], len(columns))
    assert (native.y - window.y, native.height) == (rows[0], len(rows))
    back = contract.to_network_box(native, shape)
    assert back.x <= network.x
    assert back.y <= network.y
    assert back.x + back.width >= network.x + network.width
    assert back.y + back.height >= network.y + network.height


@pytest.mark.parametrize("resize", ["nearest", "nearest-asymmetric", "area"])
@pytest.mark.parametrize("crop", [1.0, 0.6])
def test_a_changed_pixel_changes_only_its_box_at_the_network(resize, crop):
    contract = InputContract(size=16, crop=crop, resize=resize)
    shape = (48, 62)
    for y, x in itertools.product(range(0, 48, 3), range(0, 62, 3)):
        film_ = np.zeros(shape, np.uint8)
        film_[y, x] = 255
        changed = contract.to_network(film_) > 0
        box = contract.to_network_box(Box(x=x, y=y, width=1, height=1), shape)
        if box is not None:
            changed[box.y : box.y + box.height, box.x : box.x + box.width] = False
        assert not changed.any()
