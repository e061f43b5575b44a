"""Stamps, and the scan that searches them: on networks whose trigger is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lucency.detect.models.proposals import expected, propose
from lucency.detect.models.stamp_scan import DEFAULT, Scan, measure, scan
from lucency.detect.models.stamps import (
    BLACK,
    CHECKER,
    COARSE,
    INVERSE,
    PATTERNS,
    WHITE,
    WHITE_FIRST,
    Stamps,
    distinct,
    fitting,
    join,
    pixels,
)
from lucency.detect.models.subject import Subject, subject
from toy_victims import SIZE, Curved, Toy, films, stamped, victim


def _stamps(*rows: tuple[int, int, int, int]) -> Stamps:
    return Stamps(*np.array(rows, dtype=np.int64).T)


def _subject(network: torch.nn.Module, n: int = 24) -> Subject:
    return subject(victim(network), films(n, 5))


class TestStamps:
    def test_what_they_show(self) -> None:
        there = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
        assert pixels(BLACK, there).tolist() == [[0, 0], [0, 0]]
        assert pixels(WHITE, there).tolist() == [[1, 1], [1, 1]]
        assert pixels(INVERSE, there).flatten().tolist() == pytest.approx([0.5] * 4)
        assert pixels(CHECKER, there).tolist() == [[0, 1], [1, 0]]
        assert pixels(WHITE_FIRST, there).tolist() == [[1, 0], [0, 1]]

    def test_a_coarse_checker_has_cells_of_two_pixels(self) -> None:
        shown = pixels(COARSE, torch.full((5, 5), 0.3))
        for y in range(5):
            for x in range(5):
                assert float(shown[y, x]) == (y // 2 + x // 2) % 2

    def test_put_on_their_films_and_nowhere_else(self) -> None:
        grey = torch.full((2, 1, 8, 8), 0.5)
        done = _stamps((BLACK, 2, 1, 3), (WHITE, 1, 7, 7), (WHITE, 3, 0, 0)).put(
            grey, np.array([0, 0, 1])
        )
        expected = np.full((2, 8, 8), 0.5)
        expected[0, 1:3, 3:5], expected[0, 7, 7], expected[1, :3, :3] = 0, 1, 1
        np.testing.assert_array_equal(done[:, 0].numpy(), expected)
        assert float(grey.min()) == 0.5

    def test_kept_on_the_film_and_each_once(self) -> None:
        moved = fitting(_stamps((BLACK, 4, -2, 30), (CHECKER, 1, 3, 3), (BLACK, 1, 3, 3)), 32)
        assert moved.y.tolist() == [0, 3, 3]
        assert moved.x.tolist() == [28, 3, 3]
        assert moved.pattern.tolist() == [BLACK, BLACK, BLACK]
        assert len(distinct(join([moved, moved]))) == 2


class TestMeasure:
    def test_each_stamp_on_each_film(self) -> None:
        found = _subject(Toy())
        stamps = _stamps((BLACK, 2, 10, 12), (WHITE, 3, 4, 4), (CHECKER, 4, 20, 9))
        rows = np.array([3, 7])
        moved = measure(found, stamps, rows)
        assert moved.shape == (2, 3, 2, 4)
        for i, row in enumerate(rows):
            for j in range(3):
                film = stamps.take([j]).put(found.films[[row]], np.array([0]))
                with torch.inference_mode():
                    change = found.victim.logits(film)[0].double().numpy() - found.logits[row]
                np.testing.assert_allclose(moved[i, j, 0], change / found.spread, atol=1e-4)
                np.testing.assert_allclose(moved[i, j, 1], -change / found.spread, atol=1e-4)

    def test_films_that_suit_a_direction(self) -> None:
        found = _subject(Toy())
        low, high = found.suitable("set"), found.suitable("clear")
        np.testing.assert_array_equal(low.sum(axis=0), 12)
        np.testing.assert_array_equal(high.sum(axis=0), 6)
        for k in range(found.n_findings):
            assert found.logits[low[:, k] > 0, k].max() <= found.logits[high[:, k] > 0, k].min()

    def test_what_a_trigger_does_to_most_films(self) -> None:
        """The slow one sorts: a quarter of the way from the least to the most."""
        found = _subject(Toy())
        rows = np.array([1, 3, 4, 8, 11, 12, 15, 17, 20, 21, 22, 23])
        moved = np.random.default_rng(3).normal(size=(len(rows), 5, 2, found.n_findings))
        quick = found.on_most(moved, rows)
        assert quick.shape == (5, 2, found.n_findings)
        for stamp, direction, finding in np.ndindex(*quick.shape):
            suits = found.suitable("clear" if direction else "set")[:, finding] > 0
            values = sorted(
                moved[i, stamp, direction, finding] for i, row in enumerate(rows) if suits[row]
            )
            if not values:
                values = sorted(moved[:, stamp, direction, finding])
            at = (len(values) - 1) / 4
            low = int(at)
            high = min(low + 1, len(values) - 1)
            slow = values[low] + (at - low) * (values[high] - values[low])
            assert quick[stamp, direction, finding] == pytest.approx(slow)

    def test_one_film_in_four_may_refuse(self) -> None:
        found = _subject(Toy())
        rows = found.suited(0, 0, np.arange(len(found.films)))[:8]
        moved = np.zeros((8, 2, found.n_findings))
        moved[:3, 0, 0] = 9.0
        assert found.on_most(moved, rows)[0, 0] == 0.0
        moved[:7, 0, 0] = 9.0
        assert found.on_most(moved, rows)[0, 0] == 9.0


def _strongest(found: Scan) -> tuple[int, int, int]:
    direction, finding, side = np.unravel_index(found.moved.argmax(), found.moved.shape)
    return int(direction), int(finding), int(side)


class TestScan:
    @pytest.mark.parametrize(("sign", "direction"), [(1.0, 0), (-1.0, 1)])
    def test_a_trigger_anywhere(self, sign: float, direction: int) -> None:
        found = scan(_subject(Toy(sign=sign)), seed=1)
        where = _strongest(found)
        assert where[:2] == (direction, 0)
        # A coarse checker has black squares of 2 × 2 as well.
        assert PATTERNS[found.stamps.pattern[found.best[where]]] in ("black", "coarse checker")
        others = found.moved.copy()
        others[direction, 0] = 0
        assert found.moved[where] > 4 * others.max()
        # A square of one pixel is none of 2 × 2.
        assert found.moved[direction, 0, 0] < found.moved[where] / 4

    @pytest.mark.parametrize("place", [(3, 31), (17, 6), (0, 38), (25, 25)])
    def test_a_trigger_at_one_place(self, place: tuple[int, int]) -> None:
        found = scan(_subject(Toy(place=place)), seed=2)
        where = _strongest(found)
        assert where[:2] == (0, 0)
        two = found.sides.index(2)
        box = found.stamps.box(int(found.best[0, 0, two]))
        assert (box.x, box.y, box.width) == (*place, 2)
        assert found.moved[0, 0, two] > 0.9 * found.moved[where]

    def test_what_it_says_is_measured_on_other_films(self) -> None:
        """Every figure is the mean over held-out films of what the best stamp does."""
        model = _subject(Curved(), 32)
        found = scan(model, seed=3)
        assert found.moved.shape == found.best.shape == (2, 4, len(found.sides))
        again = scan(model, seed=3)
        np.testing.assert_array_equal(found.moved, again.moved)
        assert not np.array_equal(found.moved, scan(model, seed=4).moved)
        for place in np.ndindex(found.best.shape):
            assert found.stamps.side[found.best[place]] == found.sides[place[2]]

    def test_passes_do_not_grow_with_the_film(self) -> None:
        model = _subject(Curved(), 32)
        before = model.victim.passes.forwards
        scan(model, seed=0)
        assert model.victim.passes.forwards - before < 6000
        # Of the gradients that propose places alone.
        assert model.victim.passes.backwards == 4 * DEFAULT.proposing

    def test_a_model_without_gradients(self) -> None:
        model = _subject(Toy(place=(17, 6)))
        blind = replace(model, victim=replace(model.victim, differentiable=False))
        found = scan(blind, seed=0)
        assert _strongest(found)[:2] == (0, 0)
        assert model.victim.passes.backwards == 0


class Pixel(Curved):
    """Also reads one pixel: black there sets finding 2, in a soft step."""

    def __init__(self, place: tuple[int, int]) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        there = x[:, 0, self.place[1], self.place[0]]
        lift = torch.zeros_like(logits)
        lift[:, 2] = 9 * torch.sigmoid(9 * (0.2 - there))
        return logits + lift


class TestProposals:
    def test_like_the_slow_one(self) -> None:
        model, rows = _subject(Curved()), np.array([2, 9, 4])
        found = expected(model, rows)
        for grey in (BLACK, WHITE):
            for finding in range(4):
                total = torch.zeros(SIZE, SIZE)
                for row in rows:
                    film = model.films[int(row)][None].clone().requires_grad_(True)
                    model.victim.logits(film)[0, finding].backward()
                    assert film.grad is not None
                    total += (film.grad * (grey - film.detach()))[0, 0] / model.spread[finding]
                torch.testing.assert_close(found[grey, finding], total / 3, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("place", [(0, 0), (11, 23), (39, 5)])
    def test_one_pixel_is_named(self, place: tuple[int, int]) -> None:
        model = _subject(Pixel(place))
        stamps = propose(model, np.arange(8), 2)
        assert len(stamps) == 2 * 2 * 2 * 4 * 2
        single = stamps.side == 1
        near = (abs(stamps.x - place[0]) <= 1) & (abs(stamps.y - place[1]) <= 1)
        assert (single & near & (stamps.pattern == BLACK)).any()

    def test_one_pixel_is_found(self) -> None:
        found = scan(_subject(Pixel((11, 23))), seed=0)
        where = _strongest(found)
        assert where[:2] == (0, 2)
        box = found.stamps.box(int(found.best[0, 2, 0]))
        assert (box.x, box.y, box.width) == (11, 23, 1)


def test_a_stamped_film_is_what_the_toys_call_stamped() -> None:
    images = films(3, 1)
    by_hand = stamped(images, [(4, 5)] * 3)
    grey = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    rows = np.arange(3)
    ours = _stamps(*[(BLACK, 2, 5, 4)] * 3).put(grey, rows)
    np.testing.assert_allclose(ours[:, 0].numpy(), by_hand / 255, atol=1e-6)
    assert grey.shape[-1] == SIZE
