"""Deletion and insertion against loops, on networks that are sums of a few pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lucency.errors import DataError
from lucency.evaluate.faithfulness import patch_curve, rank_patches

SHAPE = (12, 18)


def linear(weights: np.ndarray):
    return lambda images: (images * weights).sum(axis=(1, 2))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image, fill = (rng.random(SHAPE).astype(np.float32) for _ in range(2))
    return image, fill, rng.normal(size=SHAPE)


def test_equals_loops_over_patches() -> None:
    image, fill, weights = drawn(1)
    logit = linear(weights)
    cells = np.random.default_rng(2).normal(size=SHAPE)
    generator = np.random.default_rng(0)
    found = patch_curve(logit, image, cells, fill, side=5, k=6, generator=generator)
    masses = {}
    for top in range(0, 12, 5):
        for left in range(0, 18, 5):
            part = cells[top : top + 5, left : left + 5]
            masses[top, left] = sum(v for v in part.ravel() if v > 0)
    order = sorted(masses, key=lambda corner: -masses[corner])
    removed, put_back = image.copy(), fill.copy()
    deletion, insertion = [logit(removed[None])[0]], [logit(put_back[None])[0]]
    for top, left in order[:6]:
        for y in range(top, min(top + 5, 12)):
            for x in range(left, min(left + 5, 18)):
                removed[y, x], put_back[y, x] = fill[y, x], image[y, x]
        deletion.append(logit(removed[None])[0])
        insertion.append(logit(put_back[None])[0])
    np.testing.assert_allclose(found.deletion, deletion, rtol=1e-5)
    np.testing.assert_allclose(found.insertion, insertion, rtol=1e-5)
    area = sum((a + b) / 2 for a, b in itertools.pairwise(deletion)) / 6
    assert found.deletion_area == pytest.approx(area, rel=1e-5)
    assert found.mean_drop == pytest.approx(deletion[0] - area, rel=1e-4)


def test_a_map_of_the_evidence_is_better_than_its_opposite() -> None:
    image, fill = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    weights = np.zeros(SHAPE)
    weights[3:6, 6:9] = 1
    right, wrong = (
        patch_curve(
            linear(weights), image, cells, fill, side=3, k=4, generator=np.random.default_rng(0)
        )
        for cells in (weights, 1 - weights)
    )
    assert right.deletion.tolist() == [9, 0, 0, 0, 0]
    assert right.insertion.tolist() == [0, 9, 9, 9, 9]
    assert wrong.deletion.tolist() == [9, 9, 9, 9, 9]
    assert right.mean_drop == pytest.approx(9 * 3.5 / 4)
    assert wrong.mean_drop == 0
    assert right.deletion_area < wrong.deletion_area
    assert right.insertion_area > wrong.insertion_area


def test_the_inputs_are_not_changed_and_the_network_is_asked_twice() -> None:
    image, fill, weights = drawn(3)
    before = image.copy(), fill.copy()
    asked = []

    def logit(images: np.ndarray) -> np.ndarray:
        asked.append(images.shape)
        assert images.dtype == np.float32
        return linear(weights)(images)

    patch_curve(logit, image, weights, fill, side=4, k=3, generator=np.random.default_rng(0))
    assert asked == [(4, *SHAPE)] * 2
    assert (image == before[0]).all()
    assert (fill == before[1]).all()


def test_a_coarse_map_ranks_by_the_mass_in_each_patch() -> None:
    cells = np.array([[0.0, 3.0], [1.0, 0.0]])  # each cell is 6 × 9 px
    order = rank_patches(cells, SHAPE, side=3, generator=np.random.default_rng(5)).tolist()
    top = [[y, x] for y in (0, 3) for x in (9, 12, 15)]
    low = [[y, x] for y in (6, 9) for x in (0, 3, 6)]
    assert sorted(order[:6]) == sorted(top)
    assert sorted(order[6:12]) == sorted(low)
    again = rank_patches(cells, SHAPE, side=3, generator=np.random.default_rng(5)).tolist()
    assert order == again


def test_ties_come_in_any_order() -> None:
    """All patches of a constant map are first equally often: no corner is preferred."""
    generator = np.random.default_rng(6)
    firsts = {
        tuple(rank_patches(np.full((5, 7), 0.1), (6, 6), side=3, generator=generator)[0])
        for _ in range(60)
    }
    assert firsts == {(0, 0), (0, 3), (3, 0), (3, 3)}


def test_smaller_patches_at_the_border_are_whole() -> None:
    order = rank_patches(np.ones((2, 2)), (7, 5), side=4, generator=np.random.default_rng(0))
    assert sorted(map(tuple, order.tolist())) == [(0, 0), (0, 4), (4, 0), (4, 4)]


def test_what_is_not_finite_counts_as_nothing() -> None:
    cells = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    order = rank_patches(cells, (4, 4), side=2, generator=np.random.default_rng(0)).tolist()
    assert order[:2] == [[2, 2], [0, 2]]


def test_what_does_not_fit_is_refused() -> None:
    image, fill, weights = drawn(7)
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match="shape"):
        patch_curve(linear(weights), image, weights, fill[:-1], side=4, k=1, generator=generator)
    for k in (0, 16):
        with pytest.raises(DataError, match="15 patches"):
            patch_curve(linear(weights), image, weights, fill, side=4, k=k, generator=generator)
    with pytest.raises(DataError, match=r"\(h, w\)"):
        rank_patches(weights[0], SHAPE, side=4, generator=generator)
    with pytest.raises(DataError, match="3 logits"):
        patch_curve(
            lambda images: np.zeros((3, 1)),
            image,
            weights,
            fill,
            side=4,
            k=2,
            generator=generator,
        )
