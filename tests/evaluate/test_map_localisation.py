"""Maps against boxes: known answers, and a slow second implementation on a fine raster."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lucency.errors import DataError
from lucency.evaluate.localisation import Localisation, Peak, covered, find_peak, localise
from lucency.records import Box

SHAPE = (24, 36)


def one_hot(grid: tuple[int, int], *cells: tuple[int, int]) -> np.ndarray:
    values = np.zeros(grid, dtype=np.float32)
    for cell in cells:
        values[cell] = 1
    return values


def slow(cells: np.ndarray, box: Box, shape: tuple[int, int], k: int) -> Localisation:
    """On a raster where every cell and every pixel is a whole number of points, with loops."""
    fine_h, fine_w = np.lcm(cells.shape[0], shape[0]), np.lcm(cells.shape[1], shape[1])
    value, inside, near = {}, {}, {}
    for y, x in itertools.product(range(fine_h), range(fine_w)):
        px, py = x * shape[1] / fine_w, y * shape[0] / fine_h
        cell = y * cells.shape[0] // fine_h, x * cells.shape[1] // fine_w
        value[y, x] = max(float(cells[cell]), 0.0)
        inside[y, x] = box.x <= px < box.x + box.width and box.y <= py < box.y + box.height
        near[y, x] = (
            box.x - 2 <= px < box.x + box.width + 2 and box.y - 2 <= py < box.y + box.height + 2
        )
    total = sum(value.values())
    best = 0.0
    for threshold in {v for v in value.values() if v > 0}:
        above = {p for p, v in value.items() if v >= threshold}
        boxed = {p for p, is_in in inside.items() if is_in}
        best = max(best, len(above & boxed) / len(above | boxed))
    distance = {}
    for i, j in np.ndindex(cells.shape):
        # The centre of the cell, in a frame where the centre of the first pixel is 0.
        cy = (i + 0.5) * shape[0] / cells.shape[0] - 0.5
        cx = (j + 0.5) * shape[1] / cells.shape[1] - 0.5
        nearest_y = min(max(cy, box.y), box.y + box.height - 1)
        nearest_x = min(max(cx, box.x), box.x + box.width - 1)
        distance[i, j] = max(abs(cy - nearest_y), abs(cx - nearest_x))
    peak = max(float(v) for v in cells.ravel())
    farthest = max(d for c, d in distance.items() if cells[c] == peak)
    worst_first = sorted(
        distance, key=lambda c: (-max(float(cells[c]), 0.0), distance[c] <= 2 and cells[c] > 0)
    )
    return Localisation(
        distance_px=farthest,
        is_hit=farthest <= 2,
        is_wide_hit=farthest <= 5,
        is_top_hit=any(distance[c] <= 2 and cells[c] > 0 for c in worst_first[:k]),
        energy=sum(v for p, v in value.items() if inside[p]) / total,
        energy_near=sum(v for p, v in value.items() if near[p]) / total,
        iou=best,
    )


@pytest.mark.parametrize("grid", [(12, 18), (7, 7), (3, 5), (24, 36), (1, 9)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_equals_the_slow_version(grid: tuple[int, int], levels: int) -> None:
    rng = np.random.default_rng([grid[0], levels])
    for _ in range(3):
        cells = rng.integers(-levels, levels + 1, grid) / levels
        cells[rng.integers(grid[0]), rng.integers(grid[1])] = 1.25
        width, height = (int(n) for n in rng.integers(1, 9, 2))
        x, y = int(rng.integers(18 - width + 1)), int(rng.integers(12 - height + 1))
        box = Box(x=x, y=y, width=width, height=height)
        found, expected = localise(cells, box, (12, 18), top_k=4), slow(cells, box, (12, 18), 4)
        for name in ("distance_px", "energy", "energy_near", "iou"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
        for name in ("is_hit", "is_wide_hit", "is_top_hit", "reason"):
            assert getattr(found, name) == getattr(expected, name), name


BOX = Box(x=20, y=10, width=3, height=3)


def test_a_perfect_map() -> None:
    cells = np.zeros(SHAPE)
    cells[10:13, 20:23] = 0.2
    assert localise(cells, BOX, SHAPE) == Localisation(0.0, True, True, True, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("column", "hit", "wide"),
    [(24, True, True), (25, False, True), (27, False, True), (28, False, False)],
)
def test_the_tolerances_include_their_own_value(column: int, hit: bool, wide: bool) -> None:
    found = localise(one_hot(SHAPE, (11, column)), BOX, SHAPE)
    assert (found.is_hit, found.is_wide_hit) == (hit, wide)
    assert found.distance_px == column - 22


def test_a_coarse_cell_that_holds_the_trigger_is_no_hit_unless_its_centre_is_near() -> None:
    corner = Box(x=0, y=0, width=2, height=2)
    found = localise(one_hot((2, 3), (0, 0)), corner, SHAPE)
    assert (found.distance_px, found.is_hit, found.is_wide_hit) == (4.5, False, True)
    assert found.energy == pytest.approx(4 / 144)
    assert found.iou == pytest.approx(4 / 144)
    assert found.energy_near == pytest.approx(16 / 144)


def test_ties_at_the_peak_hit_only_if_each_does() -> None:
    near, far = (11, 21), (2, 2)
    assert localise(one_hot(SHAPE, near, (11, 23)), BOX, SHAPE).is_hit
    tied = localise(one_hot(SHAPE, near, far), BOX, SHAPE)
    assert not tied.is_hit
    assert tied.distance_px == 18
    assert tied.is_top_hit
    assert not localise(one_hot(SHAPE, near, far), BOX, SHAPE, top_k=1).is_top_hit


def test_ties_that_fill_a_rectangle_are_one_peak_with_one_centre() -> None:
    cells = np.zeros(SHAPE)
    cells[8:14, 24:28] = 2
    assert localise(cells, BOX, SHAPE).distance_px == 25.5 - 22
    assert find_peak(cells, SHAPE) == Peak(8, 24, 6, 4, x=25.5, y=10.5)
    cells[8, 24] = 1
    assert localise(cells, BOX, SHAPE).distance_px == 27 - 22
    assert find_peak(cells, SHAPE) == "23 cells apart are equally strong"


def test_the_peak_of_a_coarse_map_is_the_centre_of_its_cell() -> None:
    assert find_peak(one_hot((2, 3), (1, 2)), SHAPE) == Peak(1, 2, 1, 1, x=29.5, y=17.5)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (np.full((2, 3), 4.0), "the map is the same everywhere, so it has no peak"),
        (np.zeros((2, 3)), "the map has no positive value"),
        (np.array([[1.0, np.nan]]), "the map is not finite"),
    ],
)
def test_what_has_no_peak_says_why(cells: np.ndarray, reason: str) -> None:
    assert find_peak(cells, SHAPE) == reason


def test_one_of_the_k_strongest_is_enough() -> None:
    cells = np.zeros(SHAPE)
    for rank, column in enumerate((0, 3, 6, 21)):
        cells[11, column] = 9 - rank
    assert not localise(cells, BOX, SHAPE, top_k=3).is_top_hit
    assert localise(cells, BOX, SHAPE, top_k=4).is_top_hit
    # Cells without evidence are no candidates, however few others there are.
    cells[11, 21] = 0
    assert not localise(cells, BOX, SHAPE, top_k=cells.size).is_top_hit


@pytest.mark.parametrize("value", [0.0, -1.0, -0.0])
def test_a_map_without_a_positive_value_points_nowhere(value: float) -> None:
    cells = np.full((4, 6), value)
    cells[0, 0] -= 1
    found = localise(cells, BOX, SHAPE)
    assert found == Localisation(
        None, False, False, False, None, None, None, "the map has no positive value"
    )


@pytest.mark.parametrize("box", [BOX, Box(x=0, y=0, width=36, height=24)])
def test_a_constant_map_is_no_hit_but_has_its_share_of_area(box: Box) -> None:
    found = localise(np.full((4, 6), 3.0), box, SHAPE)
    assert (found.distance_px, found.is_hit, found.is_wide_hit, found.is_top_hit) == (
        None,
        False,
        False,
        False,
    )
    share = box.width * box.height / (24 * 36)
    assert found.energy == pytest.approx(share)
    assert found.iou == pytest.approx(share)
    assert found.reason is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_a_miss_and_says_why(value: float) -> None:
    cells = one_hot(SHAPE, (11, 21))
    cells[0, 0] = value
    found = localise(cells, BOX, SHAPE)
    assert found.reason == "the map is not finite"
    assert not any((found.is_hit, found.is_wide_hit, found.is_top_hit))
    assert found.energy is found.iou is None


def test_scale_and_what_is_below_zero_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    cells = rng.normal(size=(6, 9))
    found = localise(cells, BOX, SHAPE)
    other = localise(np.where(cells > 0, 1e6 * cells, 5 * cells), BOX, SHAPE)
    assert found.distance_px == other.distance_px
    assert found.energy == pytest.approx(other.energy)
    assert found.iou == pytest.approx(other.iou)


def test_energy_near_counts_two_pixels_around_the_box_and_no_third() -> None:
    for column, share in ((18, 1.0), (17, 0.0), (24, 1.0), (25, 0.0)):
        assert localise(one_hot(SHAPE, (11, column)), BOX, SHAPE).energy_near == share
    assert localise(one_hot(SHAPE, (11, 18)), BOX, SHAPE).energy == 0


def test_covered_adds_up_to_the_box() -> None:
    for grid in ((24, 36), (7, 7), (1, 1)):
        shares = covered(grid, SHAPE, BOX)
        cell = 24 * 36 / (grid[0] * grid[1])
        assert shares.sum() * cell == pytest.approx(9)
        assert shares.min() >= 0
        assert shares.max() <= 1 + 1e-12


@pytest.mark.parametrize(
    "box",
    [
        Box(x=35, y=0, width=2, height=1),
        Box(x=0, y=23, width=1, height=2),
        Box(x=-1, y=0, width=2, height=1),
        Box(x=0, y=0, width=0, height=1),
    ],
)
def test_a_box_that_is_empty_or_outside_is_refused(box: Box) -> None:
    with pytest.raises(DataError, match="24 × 36"):
        localise(np.eye(3), box, SHAPE)


@pytest.mark.parametrize("cells", [np.zeros((0, 3)), np.zeros(4), np.zeros((1, 4, 4))])
def test_a_map_of_another_shape_is_refused(cells: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"\(h, w\)"):
        localise(cells, BOX, SHAPE)
    with pytest.raises(DataError, match="top_k"):
        localise(np.eye(3), BOX, SHAPE, top_k=0)
