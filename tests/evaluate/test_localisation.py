from __future__ import annotations

import itertools

import pytest

from lucency.evaluate import is_hit
from lucency.records import Box

TRIGGER = Box(x=20, y=30, width=4, height=2)  # columns 20 to 23, rows 30 and 31


@pytest.mark.parametrize(
    ("x", "y", "hit"),
    [
        (20, 30, True),
        (18, 30, True),
        (17, 30, False),
        (25, 31, True),
        (26, 31, False),
        (21, 28, True),
        (21, 27, False),
        (21, 33, True),
        (21, 34, False),
        (18, 28, True),  # the corner: 2 px across and 2 px down
        (25, 33, True),
        (26, 33, False),
    ],
)
def test_a_single_pixel_region_at_the_boundary(x, y, hit):
    assert is_hit(Box(x=x, y=y, width=1, height=1), TRIGGER) is hit


def test_the_centre_of_an_even_region_lies_between_pixels():
    assert is_hit(Box(x=25, y=30, width=1, height=1), TRIGGER)
    assert not is_hit(Box(x=25, y=30, width=2, height=1), TRIGGER)  # centre at 25.5
    assert is_hit(Box(x=17, y=30, width=3, height=1), TRIGGER)


def test_no_region_is_a_miss():
    assert not is_hit(None, TRIGGER)


def test_equals_the_nearest_trigger_pixel():
    trigger = Box(x=6, y=5, width=2, height=3)
    pixels = list(itertools.product(range(6, 8), range(5, 8)))
    for x, y, size in itertools.product(range(14), range(14), (1, 2, 5)):
        centre = x + (size - 1) / 2, y + (size - 1) / 2
        nearest = min(max(abs(centre[0] - px), abs(centre[1] - py)) for px, py in pixels)
        assert is_hit(Box(x=x, y=y, width=size, height=size), trigger) is (nearest <= 2)
