"""The map's cells are drawn as they are, and boxes never cover what they frame."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from lucency.records import Box
from lucency.report import overlay


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize(("cells", "side"), [((7, 7), 224), ((3, 5), 64), ((96, 96), 96)])
def test_cells_are_exact(cells: tuple[int, int], side: int) -> None:
    rng = np.random.default_rng(1)
    image = np.full((side, side), 120, dtype=np.uint8)
    values = rng.random(cells).astype(np.float32)
    drawn = pixels(overlay.picture(image, values, None, None))
    scale = drawn.shape[0] // side
    scaled = overlay.strength(values)
    for row in range(side):
        for column in range(0, side, 5):
            value = float(scaled[row * cells[0] // side, column * cells[1] // side])
            tint = 255 * np.array(matplotlib.colormaps[overlay.COLOURS](value)[:3])
            alpha = overlay.OPACITY * np.sqrt(value)
            expected = np.rint((1 - alpha) * 120 + alpha * tint)
            block = drawn[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            assert np.abs(block.reshape(-1, 3) - expected).max() <= 1
            assert np.ptp(block.reshape(-1, 3), axis=0).max() == 0


def test_a_cell_is_one_colour_and_has_straight_edges() -> None:
    values = np.zeros((7, 7), dtype=np.float32)
    values[3, 2] = 1
    drawn = pixels(overlay.picture(np.full((224, 224), 80, np.uint8), values, None, None))
    scale = drawn.shape[0] // 224
    tinted = (drawn != 80).any(axis=2)
    expected = np.zeros_like(tinted)
    expected[96 * scale : 128 * scale, 64 * scale : 96 * scale] = True
    assert (tinted == expected).all()
    assert len(np.unique(drawn[tinted], axis=0)) == 1


def test_without_a_map_the_film_is_the_film() -> None:
    image = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    drawn = pixels(overlay.picture(image, None, None, None))
    scale = drawn.shape[0] // 64
    assert (drawn[::scale, ::scale, 0] == image).all()


def test_boxes_leave_their_pixels_alone() -> None:
    image = np.full((224, 224), 80, np.uint8)
    region, trigger = Box(x=100, y=50, width=5, height=4), Box(x=101, y=51, width=1, height=1)
    plain = pixels(overlay.close_up(image, None, region, None, 32))
    framed = pixels(overlay.close_up(image, None, region, trigger, 32))
    scale = framed.shape[0] // 32
    x, y = region.x + region.width // 2 - 16, region.y + region.height // 2 - 16
    left, top = (trigger.x - x) * scale, (trigger.y - y) * scale
    assert (framed[top : top + scale, left : left + scale] == 80).all()
    assert (framed[top - 2, left : left + scale] != 80).any()
    left, top = (region.x - x) * scale, (region.y - y) * scale
    inside = plain[top : top + 4 * scale, left : left + 5 * scale]
    assert (inside == 80).all()
    assert (plain[top - 3, left : left + 5 * scale] == overlay.REGION_INK).all()


@pytest.mark.parametrize("at", [0, 219])
def test_a_box_at_the_edge(at: int) -> None:
    image = np.zeros((224, 224), np.uint8)
    box = Box(x=at, y=at, width=5, height=5)
    assert pixels(overlay.picture(image, None, box, box)).shape == (448, 448, 3)
    assert pixels(overlay.close_up(image, None, box, box, 32)).shape == (448, 448, 3)


def test_empty_and_broken_maps() -> None:
    image = np.full((16, 16), 9, np.uint8)
    for values in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), -1.0)):
        drawn = pixels(overlay.picture(image, values.astype(np.float32), None, None))
        assert (drawn == 9).all()
