"""Films that are there twice."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image as Pillow

from lucency.detect.datasets import duplicates
from lucency.detect.datasets.duplicates import FAR, copies, difference_hash


def _film(seed: int, size: int = 256) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = Pillow.fromarray(generator.integers(30, 220, (9, 9)).astype(np.uint8))
    return np.asarray(coarse.resize((size, size), Pillow.Resampling.BICUBIC)).copy()


def _bits(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.unpackbits((a ^ b).view(np.uint8)).sum())


def _compressed(film: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Pillow.fromarray(film).save(stream, "JPEG", quality=80)
    return np.asarray(Pillow.open(stream))


def test_a_hash_like_the_slow_one() -> None:
    film = _film(0, 80)
    cells = np.array(
        [[film[y * 5 : y * 5 + 5, x0:x1].mean() for x0, x1 in pairwise(EDGES)] for y in range(16)]
    )
    expected = np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint16)
    assert difference_hash(film).tolist() == expected.tolist()


EDGES = [int(e) for e in np.linspace(0, 80, 17, endpoint=False)] + [80]


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_is_near(seed: int) -> None:
    film = _film(seed)
    stamped, darker = film.copy(), (film * 0.9).astype(np.uint8)
    stamped[100:108, 40:48] = 0
    for copy in (film, stamped, darker, _compressed(film)):
        assert _bits(difference_hash(copy), difference_hash(film)) <= FAR
    other = difference_hash(_film(seed + 50))
    assert _bits(other, difference_hash(film)) > 5 * FAR


def _slow(hashes: np.ndarray) -> list[int]:
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    group = list(range(len(bits)))
    for _ in range(len(bits)):
        for i in range(len(bits)):
            for j in range(len(bits)):
                if (bits[i] != bits[j]).sum() < FAR:
                    group[j] = min(group[i], group[j])
    return group


def test_copies_like_the_slow_one() -> None:
    generator = np.random.default_rng(6)
    originals = generator.integers(0, 2**16, (12, 16), np.uint16)
    rows = [*range(12), 3, 7, 7, 0]
    hashes = originals[rows]
    # A few bits of some copies are others.
    hashes[12, 0] ^= 0b1011
    hashes[14, [2, 9]] ^= 1
    assert copies(hashes).tolist() == _slow(hashes) == [*range(12), 3, 7, 7, 0]


def test_a_copy_of_a_copy_and_many_of_one() -> None:
    hashes = np.repeat(np.random.default_rng(1).integers(0, 2**16, (2, 16), np.uint16), 100, axis=0)
    hashes[1, :2] ^= 0b11
    hashes[2, :4] ^= 0b11
    assert copies(hashes).tolist() == [0] * 100 + [100] * 100


def test_films_of_one_grey_are_no_copies() -> None:
    flat = [np.full((64, 64), grey, np.uint8) for grey in (0, 90, 255)]
    slope = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    small = np.zeros((8, 300), np.uint8)
    hashes = np.stack([difference_hash(film) for film in [*flat, slope, slope, small]])
    assert copies(hashes).tolist() == [0, 1, 2, 3, 4, 5]
    assert copies(hashes[:0]).tolist() == []


def test_what_many_films_have_in_common_hides_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same border on every film makes parts of all hashes equal."""
    monkeypatch.setattr(duplicates, "COMMON", 4)
    generator = np.random.default_rng(2)
    hashes = generator.integers(0, 2**16, (60, 16), np.uint16)
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    bits[:, duplicates._ORDER[:64]] = 1
    hashes = np.packbits(bits, axis=1).view(np.uint16)
    hashes[41] = hashes[17]
    hashes[41, 3] ^= 2
    assert copies(hashes)[41] == 17
