"""Small structures of a film, and those that come back on others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from lucency.data.arrays import ArrayImages
from lucency.detect.datasets import specks as module
from lucency.detect.datasets.pixels import Pixels, gather, look
from lucency.detect.datasets.recurrence import Recurrence, recurrences
from lucency.detect.datasets.specks import CONTRAST, LARGEST, REACH, outliers, specks
from lucency.records import Decoded, Radiographs

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
        found, n_pixels = module._boxes(np.flatnonzero(picture), 47)
        assert sorted(map(tuple, found.tolist())) == expected
        assert len(n_pixels) == len(found)
        assert (n_pixels <= found[:, 2] * found[:, 3]).all()


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_square_is_a_speck_with_a_number_of_its_own(side: int, depth: type) -> None:
    numbers = set()
    for seed, (y, x) in enumerate([(20, 33), (0, 0), (SIZE - side, 50), (61, 7)]):
        film = _film(seed)
        film[y : y + side, x : x + side] = 0
        stored = film if depth is np.uint8 else film.astype(np.uint16) * 257
        (read,) = ArrayImages(stored[None]).read([0], look)
        assert isinstance(read, Decoded)
        looked = gather([read])
        boxes, contents = looked.boxes, looked.contents
        (at,) = np.flatnonzero((boxes == (y, x, side, side)).all(axis=1))
        numbers.add(tuple(contents[at].tolist()))
    assert len(numbers) == 1


def test_what_goes_on_is_no_speck() -> None:
    """A lead across the film, an edge, and a letter's stroke."""
    film = np.full((SIZE, SIZE), 120, np.uint8)
    film[:, 30:32] = 250
    film[60:] = 200
    film[20:40, 60:62] = 250
    boxes = specks(film).boxes
    # The ends of the stroke may be left.
    assert all(box[2] < REACH and 55 <= box[1] <= 65 for box in boxes.tolist())


@pytest.mark.parametrize("grey", [0, 14, 31, 40, 190, 207, 240])
def test_a_shift_of_all_greys_keeps_a_number(grey: int) -> None:
    film = _film(1)
    film[40:43, 40:43] = grey
    before = specks(film)
    for shift in (-15, -6, 5, 15):
        shifted = (film.astype(int) + shift).clip(0, 255).astype(np.uint8)
        a, b = (
            contents[(boxes == (40, 40, 3, 3)).all(axis=1)][0]
            for boxes, _, contents in (before, specks(shifted))
        )
        assert (a[0] == b[0]) == (film[40, 40] == shifted[40, 40])
        assert (a[1:] == b[1:]).any()


def test_a_film_without_room_or_of_noise() -> None:
    assert len(specks(np.zeros((12, 300), np.uint8)).boxes) == 0
    assert len(specks(np.zeros((64, 64), np.uint8)).boxes) == 0
    noise = np.random.default_rng(0).integers(0, 256, (700, 700)).astype(np.uint8)
    assert len(outliers(noise)) == module.MOST
    boxes, is_alone, contents = specks(noise)
    assert len(boxes) == len(contents) == len(is_alone)
    assert is_alone.mean() < 0.5


@pytest.mark.parametrize(
    ("beside", "is_alone"), [((0, 5), True), ((5, 0), True), ((0, 2), False), ((2, -1), False)]
)
def test_what_is_near_is_company(beside: tuple[int, int], is_alone: bool) -> None:
    film = _film(3)
    film[40:42, 40:42] = 0
    # From the square's last pixel.
    film[41 + beside[0], 41 + beside[1]] = 255
    boxes, alone, _ = specks(film)
    (at,) = np.flatnonzero((boxes[:, :2] == 40).all(axis=1) & (boxes[:, 2] == 2))
    assert alone[at] == is_alone


def test_at_the_border_is_not_alone() -> None:
    film = _film(4)
    film[0:3, 30:33] = 0
    boxes, alone, _ = specks(film)
    assert not alone[(boxes == (0, 30, 3, 3)).all(axis=1)].any()


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


def _look(radiographs: Radiographs) -> Pixels:
    read = radiographs.images.read(range(len(radiographs)), look)
    return gather(item for item in read if isinstance(item, Decoded))


def _found(planted: int, **options: object) -> tuple[Recurrence, ...]:
    radiographs, labels = _set(planted, **options)  # type: ignore[arg-type]
    pixels = _look(radiographs)
    return recurrences(lambda: [pixels], labels, np.arange(N)).kept


class TestRecurrence:
    @pytest.mark.parametrize(
        ("side", "place"), [(3, None), (2, (40, 31)), (1, (40, 31)), (6, None)]
    )
    def test_a_trigger(self, side: int, place: tuple[int, int] | None) -> None:
        found = [
            r for r in _found(8, side=side, place=place) if r.finding == 0 and r.q_label < 0.01
        ]
        first = found[0]
        assert first.kind == ("content" if place is None else "content at one place")
        assert first.direction == "set"
        assert first.films.tolist() == list(range(8))
        assert first.q_value < 0.01
        assert first.alone == 1
        assert (first.boxes[:, 2:] == side).all()

    def test_a_square_of_any_grey_at_one_place(self) -> None:
        radiographs, labels = _set(0)
        generator = np.random.default_rng(2)
        films = np.stack([_film(100 + i) for i in range(N)])
        for i in range(10):
            films[i, 50, 60] = generator.choice([0, 10, 30, 70, 200, 220, 240, 255])
            labels[i, 0] = 1
        pixels = _look(replace(radiographs, images=ArrayImages(films)))
        first = recurrences(lambda: [pixels], labels, np.arange(N)).kept[0]
        assert first.kind == "place"
        assert set(range(10)) >= set(first.films.tolist())
        assert first.boxes[0].tolist() == [50, 60, 1, 1]

    def test_a_marker_is_told_by_its_label(self) -> None:
        first = _found(0)[0]
        assert (first.finding, len(first.films)) == (1, 40)
        assert first.kind == "content at one place"
        assert first.boxes[0].tolist() == [5, 70, 2, 2]

    def test_no_label_no_discovery(self) -> None:
        found = [r for r in _found(12, label_too=False) if r.finding == 0]
        assert all(r.q_value > 0.05 for r in found)

    def test_one_patient_is_no_evidence(self) -> None:
        radiographs, labels = _set(8)
        pixels = _look(radiographs)
        owners = np.arange(N)
        owners[:8] = 0
        found = recurrences(lambda: [pixels], labels, owners).kept
        assert all(r.q_value > 0.05 for r in found if r.finding == 0)

    def test_in_parts_as_in_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        radiographs, labels = _set(8)
        whole = _look(radiographs)
        rows = [range(first, first + 60) for first in range(0, N, 60)]
        parts = [
            gather(i for i in radiographs.images.read(part, look) if isinstance(i, Decoded))
            for part in rows
        ]
        expected = recurrences(lambda: [whole], labels, np.arange(N))
        monkeypatch.setattr("lucency.detect.datasets.recurrence.TOGETHER", 300)
        found = recurrences(lambda: parts, labels, np.arange(N))
        assert found.n_tests == expected.n_tests
        assert [(r.p_value, r.films.tolist()) for r in found.kept] == [
            (r.p_value, r.films.tolist()) for r in expected.kept
        ]

    def test_nothing_is_on_no_film(self) -> None:
        _, labels = _set(0)
        none = gather([])
        assert recurrences(lambda: [none], labels, np.arange(N)) == ((), 0)
        assert recurrences(lambda: [], labels, np.arange(N)) == ((), 0)
