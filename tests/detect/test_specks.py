"""Small structures of a film, and those that come back on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.ndimage import find_objects, label

from lucency.data.arrays import ArrayImages
from lucency.data.folder import FolderSource
from lucency.detect.datasets import specks as module
from lucency.detect.datasets.recurrence import Recurrence, read_specks, recurrences
from lucency.detect.datasets.specks import CONTRAST, LARGEST, REACH, outliers, specks, unpack
from lucency.records import Radiographs

SIZE = 96
N = 240


def _film(seed: int, size: int = SIZE) -> np.ndarray:
    """Broad shades with noise, as bright as lungs and bones."""
    generator = np.random.default_rng(seed)
    shades = np.kron(generator.uniform(110, 140, (6, 6)), np.ones((size // 6, size // 6)))
    return (shades + generator.normal(0, 5, shades.shape)).clip(40, 220).astype(np.uint8)


def _slow_outliers(grey: np.ndarray) -> list[int]:
    """A pixel at a time."""
    height, width = grey.shape

    def beside(y: int, x: int, dy: int, dx: int) -> int:
        y2, x2 = y + dy, x + dx
        if not (0 <= y2 < height and 0 <= x2 < width):
            y2, x2 = y - dy, x - dx
        return int(grey[y2, x2])

    found = []
    for y, x in np.ndindex(height, width):
        away = ((-REACH, 0), (REACH, 0), (0, -REACH), (0, REACH))
        four = sorted(beside(y, x, dy, dx) for dy, dx in away)
        here = int(grey[y, x])
        if four[1] - here > CONTRAST or here - four[2] > CONTRAST:
            found.append(y * width + x)
    return found


@pytest.mark.parametrize("shape", [(96, 96), (70, 41), (19, 130)])
def test_outliers_like_the_slow_one(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    grey = generator.integers(0, 256, shape).astype(np.uint8)
    grey[:, :20] = 120
    assert outliers(grey).tolist() == _slow_outliers(grey)


def test_boxes_are_those_of_a_labelled_picture() -> None:
    generator = np.random.default_rng(5)
    for share in (0.01, 0.1, 0.3):
        picture = generator.random((60, 47)) < share
        groups, _ = label(picture, np.ones((3, 3)))
        expected = sorted(
            (s[0].start, s[1].start, s[0].stop - s[0].start, s[1].stop - s[1].start)
            for s in find_objects(groups)
        )
        expected = [box for box in expected if max(box[2:]) <= LARGEST]
        found = module._boxes(np.flatnonzero(picture), 47)
        assert sorted(map(tuple, found.tolist())) == expected


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_square_is_a_speck_with_a_number_of_its_own(side: int, depth: type) -> None:
    numbers = set()
    for seed, (y, x) in enumerate([(20, 33), (0, 0), (SIZE - side, 50), (61, 7)]):
        film = _film(seed)
        film[y : y + side, x : x + side] = 0
        stored = film if depth is np.uint8 else film.astype(np.uint16) * 257
        boxes, contents = unpack(specks(stored, 0))
        (at,) = np.flatnonzero((boxes == (y, x, side, side)).all(axis=1))
        numbers.add(tuple(contents[at].tolist()))
    assert len(numbers) == 1


def test_what_goes_on_is_no_speck() -> None:
    """A lead across the film, an edge, and a letter's stroke."""
    film = np.full((SIZE, SIZE), 120, np.uint8)
    film[:, 30:32] = 250
    film[60:] = 200
    film[20:40, 60:62] = 250
    boxes, _ = unpack(specks(film, 0))
    # The ends of the stroke may be left.
    assert all(box[2] < REACH and 55 <= box[1] <= 65 for box in boxes.tolist())


@pytest.mark.parametrize("grey", [0, 14, 31, 40, 190, 207, 240])
def test_a_shift_of_all_greys_keeps_a_number(grey: int) -> None:
    film = _film(1)
    film[40:43, 40:43] = grey
    before = unpack(specks(film, 0))
    for shift in (-15, -6, 5, 15):
        shifted = (film.astype(int) + shift).clip(0, 255).astype(np.uint8)
        a, b = (
            contents[(boxes == (40, 40, 3, 3)).all(axis=1)][0]
            for boxes, contents in (before, unpack(specks(shifted, 0)))
        )
        assert (a[0] == b[0]) == (film[40, 40] == shifted[40, 40])
        assert (a[1:] == b[1:]).any()


def test_a_film_without_room_or_of_noise() -> None:
    assert len(unpack(specks(np.zeros((12, 300), np.uint8), 0))[0]) == 0
    assert len(unpack(specks(np.zeros((64, 64), np.uint8), 0))[0]) == 0
    noise = np.random.default_rng(0).integers(0, 256, (700, 700)).astype(np.uint8)
    assert len(outliers(noise)) == module.MOST
    boxes, contents = unpack(specks(noise, 0))
    assert len(boxes) == len(contents)


def _set(
    planted: int, *, side: int = 3, place: tuple[int, int] | None = None, label_too: bool = True
) -> tuple[Radiographs, np.ndarray]:
    """Films of which the first `planted` have a square and its label, and a marker that comes with
    the other finding on some."""
    generator = np.random.default_rng(9)
    films = np.stack([_film(100 + i) for i in range(N)])
    labels = (generator.random((N, 2)) < (0.15, 0.3)).astype(np.float32)
    for i in range(planted):
        y, x = place or generator.integers(12, SIZE - 20, 2)
        films[i, y : y + side, x : x + side] = 0
        labels[i, 0] = 1 if label_too else labels[i, 0]
    for i in np.flatnonzero(labels[:, 1] == 1)[:40]:
        films[i, 5:7, 70:72] = 255
    names = tuple(f"{i}" for i in range(N))
    nobody = (None,) * N
    radiographs = Radiographs(
        "test", ("Mass", "Edema"), names, names, labels, nobody, nobody, ArrayImages(films)
    )
    return radiographs, labels


def _found(planted: int, **options: object) -> list[Recurrence]:
    radiographs, labels = _set(planted, **options)  # type: ignore[arg-type]
    specks_of_all, rejected = read_specks(radiographs)
    assert rejected == ()
    return recurrences(specks_of_all, labels)


class TestRecurrence:
    @pytest.mark.parametrize(
        ("side", "place"), [(3, None), (2, (40, 31)), (1, (40, 31)), (6, None)]
    )
    def test_a_trigger(self, side: int, place: tuple[int, int] | None) -> None:
        found = [r for r in _found(8, side=side, place=place) if r.finding == 0]
        first = found[0]
        assert (first.direction, first.is_fixed) == ("set", place is not None)
        assert first.films.tolist() == list(range(8))
        assert first.q_value < 0.01
        assert first.share == 1.0
        assert (first.boxes[:, 2:] == side).all()

    def test_a_marker_is_told_by_its_label(self) -> None:
        first = _found(0)[0]
        assert (first.finding, first.is_fixed, len(first.films)) == (1, True, 40)
        assert first.boxes[0].tolist() == [5, 70, 2, 2]

    def test_no_label_no_discovery(self) -> None:
        found = [r for r in _found(12, label_too=False) if r.finding == 0]
        assert all(r.q_value > 0.05 for r in found)

    def test_nothing_is_on_no_film(self) -> None:
        radiographs, labels = _set(0)
        none, _ = read_specks(radiographs)
        empty = type(none)(none.film[:0], none.boxes[:0], none.contents[:0])
        assert recurrences(empty, labels) == []

    def test_a_broken_file_is_named_and_the_rest_read(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        rows = ["image,patient_id,Mass"]
        for i in range(6):
            Pillow.fromarray(_film(i)).save(tmp_path / "images" / f"{i}.png")
            rows.append(f"images/{i}.png,{i},{i % 2}")
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        (tmp_path / "images" / "3.png").write_bytes(b"no film")
        radiographs = FolderSource(path=tmp_path).load(0)
        found, rejected = read_specks(radiographs)
        assert [r.image for r in rejected] == ["images/3.png"]
        assert set(found.film.tolist()) <= {0, 1, 2, 4, 5}
