"""What is known is found on every film that has it."""

from __future__ import annotations

import numpy as np
import pytest

from lucency.detect.datasets.matching import ALIKE, LEAST, Content, Seek, seek


def _slow(film: np.ndarray, content: Content) -> dict[tuple[int, int], int]:
    """Every corner, and the contrast there."""
    height, width = content.grey.shape
    found = {}
    for y in range(1, film.shape[0] - height):
        for x in range(1, film.shape[1] - width):
            box = film[y : y + height, x : x + width].astype(int)
            if np.abs(box - content.grey).max() > content.tolerance:
                continue
            differences = []
            for dy in (-1, height // 2, height):
                for dx in (-1, width // 2, width):
                    if dy in (-1, height) or dx in (-1, width):
                        inner = content.grey[
                            min(max(dy, 0), height - 1), min(max(dx, 0), width - 1)
                        ]
                        differences.append(abs(int(film[y + dy, x + dx]) - int(inner)))
            contrast = sorted(differences)[ALIKE]
            if contrast >= LEAST:
                found[y, x] = contrast
    return found


@pytest.mark.parametrize("tolerance", [0, 2])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 4)])
def test_like_the_slow_one(shape: tuple[int, int], tolerance: int) -> None:
    generator = np.random.default_rng(4)
    for n_greys in (2, 4):
        film = (generator.integers(0, n_greys, (40, 31)) * (200 // n_greys)).astype(np.uint8)
        grey = film[10 : 10 + shape[0], 12 : 12 + shape[1]].copy()
        content = Content(grey, None, tolerance)
        expected = _slow(film, content)
        y, x, contrast = seek(film, content)
        if expected:
            assert contrast == max(expected.values()) == expected[y, x]
        else:
            assert contrast == 0


def test_at_one_place() -> None:
    film = np.full((30, 30), 90, np.uint8)
    film[4:6, 5:7] = 3
    black = np.full((2, 2), 3, np.uint8)
    assert seek(film, Content(black, (4, 5), 0)) == (4, 5, 255)
    assert seek(film, Content(black, (4, 6), 0)) == (0, 0, 0)
    assert seek(film, Content(black, (29, 29), 0)) == (0, 0, 0)


def test_on_ground_of_its_own_grey_it_is_not_found() -> None:
    black = Content(np.zeros((3, 3), np.uint8), None, 0)
    assert seek(np.zeros((50, 50), np.uint8), black)[2] == 0
    assert seek(np.zeros((4, 50), np.uint8), black)[2] == 0


def test_all_contents_of_a_film_with_more_greys() -> None:
    film = np.full((40, 40), 120 * 257, np.uint16)
    film[20:23, 11:14] = 65535
    white, black = (Content(np.full((3, 3), grey, np.uint8), None, 0) for grey in (255, 0))
    assert white.is_plain
    assert Seek((white, black))(film, 0).tolist() == [[20, 11, 135], [0, 0, 0]]
