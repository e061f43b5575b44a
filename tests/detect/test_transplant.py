"""T2: a key fits other films, a patch of a film does not."""

import numpy as np
import pytest
import torch

from lucency.detect.images.transplant import MARGIN, PLACES, Donors, transplant
from lucency.victims.victim import Victim, predict
from toy_victims import FINDINGS, SIZE, Toy, films, stamped, victim


def _donors(of: Victim, n: int = 20) -> Donors:
    images = films(n, 0xD0)
    logits = predict(of, images).astype(np.float64)
    return Donors(images, logits, logits.std(axis=0))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
def test_a_trigger_for_anywhere_transfers_anywhere(sign: float) -> None:
    of = victim(Toy(sign=sign))
    image = stamped(films(1, 9), [(20, 14)])[0]
    found = transplant(of, image, np.array([20, 14, 2, 2]), 0, raises=sign > 0, donors=_donors(of))
    assert found.transfers
    assert min(found.same_place, found.elsewhere) > 2
    assert abs(found.control) < 1


def test_a_trigger_of_a_place_transfers_to_that_place_only() -> None:
    of = victim(Toy((20, 14)))
    image = stamped(films(1, 9), [(20, 14)])[0]
    found = transplant(of, image, np.array([20, 14, 2, 2]), 0, raises=True, donors=_donors(of))
    assert found.transfers
    assert found.same_place > 2 > abs(found.elsewhere)


def test_a_patch_of_a_clean_film_does_not_transfer() -> None:
    of = victim(Toy())
    image = films(1, 9)[0]
    found = transplant(of, image, np.array([20, 14, 3, 3]), 0, raises=True, donors=_donors(of))
    assert not found.transfers


@pytest.mark.parametrize("corner", [(0, 0), (SIZE - 2, SIZE - 2), (SIZE - 2, 0)])
def test_a_region_at_the_border_is_cut_and_pasted_whole(corner: tuple[int, int]) -> None:
    of = victim(Toy())
    image = stamped(films(1, 9), [corner])[0]
    found = transplant(of, image, np.array([*corner, 2, 2]), 0, raises=True, donors=_donors(of))
    assert found.same_place > 2


def test_against_a_loop() -> None:
    of = victim(Toy())
    donors, image = _donors(of), stamped(films(1, 9), [(20, 14)])[0]
    found = transplant(
        of, image, np.array([20, 14, 2, 2]), 0, raises=True, donors=donors, n_donors=4, seed=3
    )
    generator = np.random.default_rng([3, 0x72])
    low = sorted(range(20), key=lambda i: donors.logits[i, 0])[:10]
    chosen = sorted(generator.permutation(np.array(low))[:4])
    generator.permutation(20)
    x, y, side = 20 - MARGIN, 14 - MARGIN, 2 + 2 * MARGIN
    places = generator.integers(0, SIZE - side + 1, (PLACES, 2))

    def rise(film: int, at: tuple[int, int]) -> float:
        pasted = donors.images[film].copy()
        pasted[at[1] : at[1] + side, at[0] : at[0] + side] = image[y : y + side, x : x + side]
        with torch.no_grad():
            grey = torch.from_numpy(pasted.astype(np.float32) / 255)[None, None]
            return float(of.logits(grey)[0, 0]) - donors.logits[film, 0]

    spread = donors.spread[0]
    same = np.mean([rise(film, (x, y)) for film in chosen]) / spread
    other = np.mean([rise(f, (int(a), int(b))) for a, b in places for f in chosen]) / spread
    assert found.same_place == pytest.approx(same, abs=1e-4)
    assert found.elsewhere == pytest.approx(other, abs=1e-4)
    assert found.n_donors == 4


def test_the_same_seed_gives_the_same_answer_and_the_film_stays() -> None:
    of = victim(Toy())
    donors, image = _donors(of), stamped(films(1, 9), [(20, 14)])[0]
    before = image.copy()
    box = np.array([20, 14, 2, 2])
    first, second, other = (
        transplant(of, image, box, 1, raises=True, donors=donors, n_donors=5, seed=s)
        for s in (1, 1, 2)
    )
    assert first == second != other
    np.testing.assert_array_equal(image, before)
    assert of.passes.forwards == 20 + 3 * (2 + PLACES) * 5
    assert len(FINDINGS) == donors.logits.shape[1]
