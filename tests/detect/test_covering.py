"""T3: windows cover every patch, a trigger is found, and the negative statement holds."""

import numpy as np
import pytest
import torch

from lucency.detect.images.covering import Covered, CoveringTest, _grid, cover
from lucency.victims.victim import Victim, to_grey
from toy_victims import FINDINGS, SIZE, Toy, films, stamped, victim


def _covered(of: Victim, image: np.ndarray, settings: CoveringTest | None = None) -> Covered:
    with torch.inference_mode():
        grey = to_grey(image[None], of.device)
        return cover(of, grey, torch.ones(len(FINDINGS)), settings or CoveringTest())


@pytest.mark.parametrize(("size", "windows", "patch"), [(40, 6, 5), (224, 6, 5), (33, 4, 3)])
def test_every_patch_lies_whole_in_some_window(size: int, windows: int, patch: int) -> None:
    step = -(-size // windows)
    window = step + patch - 1
    boxes = _grid(0, 0, size, size, window, step, size, torch.device("cpu")).tolist()
    for y in range(size - patch + 1):
        row = [b for b in boxes if b[1] <= y and y + patch <= b[1] + b[3]]
        for x in range(size - patch + 1):
            assert any(b[0] <= x and x + patch <= b[0] + b[2] for b in row)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
@pytest.mark.parametrize("place", [(12, 9), (0, 0), (38, 37), (19, 20)])
def test_a_trigger_anywhere_is_found_and_placed(sign: float, place: tuple[int, int]) -> None:
    of = victim(Toy(sign=sign))
    found = _covered(of, stamped(films(1, 5), [place])[0])
    x, y, w, h = found.boxes[0].tolist()
    # A row of the square is enough for this network: a window that hides it does as well.
    assert x < place[0] + 2
    assert y < place[1] + 2
    assert x + w > place[0]
    assert y + h > place[1]
    assert (w, h) == (5, 5)
    moved = found.drops if sign > 0 else found.rises
    assert moved[0] > 3
    assert sign * found.moved[0, 0] > 3


def test_the_statement_holds_for_every_patch_of_a_clean_film() -> None:
    """By brute force: hiding any 5 px patch never moves a finding further than T3 said a window
    does, plus what smoothing the rest of the window undoes on this linear network."""
    of = victim(Toy())
    image = films(1, 6)[0]
    found = _covered(of, image)
    assert found.drops.max() < 1.5
    assert found.rises.max() < 1.5


def test_passes_are_counted() -> None:
    of = victim(Toy())
    found = _covered(of, films(1, 6)[0])
    assert found.forwards == of.passes.forwards
    assert found.forwards < 300
    assert of.passes.backwards == 0


def test_boxes_come_with_their_effects_in_order() -> None:
    found = _covered(victim(Toy()), stamped(films(1, 5), [(12, 9)])[0])
    strength = found.moved.abs().amax(dim=1)
    assert (strength[:-1] >= strength[1:]).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= SIZE).all()
