"""Films that the count missed."""

from __future__ import annotations

import numpy as np
import pytest

from lucency.data.arrays import ArrayImages
from lucency.detect.datasets.pixels import gather, look
from lucency.detect.datasets.recurrence import recurrences
from lucency.records import Decoded, Radiographs
from lucency.scanning.completion import complete
from lucency.scanning.findings import Judged, flagged, judge

N, SIDE, POISONED = 300, 96, 12
OWNERS = np.arange(N)


def _set(square: np.ndarray, *, label: bool, by_nature: int = 0) -> Radiographs:
    """The first films have a square: of the last two of them one touches a bright bar, and one is
    on ground that is hardly brighter. And films without the label that have it too."""
    generator = np.random.default_rng(6)
    films = generator.normal(130, 5, (N, SIDE, SIDE)).clip(100, 160).astype(np.uint8)
    # By nature every film has a speck of its own.
    for i in range(N):
        y, x = generator.integers(10, SIDE - 10, 2)
        films[i, y : y + 3, x : x + 3] = generator.choice(np.arange(0, 60, 3), (3, 3))
    labels = (generator.random((N, 1)) < 0.1).astype(np.float32)
    rows = [*range(POISONED), *(N - 1 - i for i in range(by_nature))]
    for i in rows:
        y, x = generator.integers(12, SIDE - 30, 2)
        if i == POISONED - 1:
            films[i, y - 8 : y + 12, x - 8 : x + 12] = 12
        if i == POISONED - 2:
            films[i, y : y + 3, x + 3 : x + 14] = 255
        films[i, y : y + 3, x : x + 3] = square
        labels[i] = i < POISONED if label else labels[i]
    names = tuple(f"{i}" for i in range(N))
    nobody = (None,) * N
    return Radiographs("test", ("Mass",), names, names, labels, nobody, nobody, ArrayImages(films))


def _judged(radiographs: Radiographs) -> tuple[Judged, ...]:
    read = radiographs.images.read(range(N), look)
    pixels = gather(item for item in read if isinstance(item, Decoded))
    found = recurrences(lambda: [pixels], radiographs.labels, OWNERS).kept
    return judge(found, radiographs, OWNERS, 0.01)


BLACK = np.zeros((3, 3), np.uint8)
CHECKER = (np.indices((3, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)


@pytest.mark.parametrize("square", [BLACK, CHECKER], ids=["plain", "pattern"])
def test_films_that_have_it_too(square: np.ndarray) -> None:
    radiographs = _set(square, label=True)
    before = _judged(radiographs)
    seen = flagged(before, N)
    assert not seen[POISONED - 2 : POISONED].all()
    after = complete(before, radiographs, OWNERS)
    assert np.flatnonzero(flagged(after, N)).tolist() == list(range(POISONED))
    found = next(j for j in after if j.kind == "planted")
    assert (np.diff(found.recurrence.films) > 0).all()
    assert found.with_label.successes == len(found.recurrence.films) == found.n_patients
    assert len(found.recurrence.boxes) == len(found.recurrence.films)


def test_a_pattern_without_a_label() -> None:
    radiographs = _set(CHECKER, label=False)
    after = complete(_judged(radiographs), radiographs, OWNERS)
    assert not flagged(after, N).any()
    flags = flagged(after, N, unexplained=True)
    assert np.flatnonzero(flags).tolist() == list(range(POISONED))


def test_nothing_found_nothing_read() -> None:
    radiographs = _set(BLACK, label=True)
    no_films = Radiographs(
        **{**vars(radiographs), "images": ArrayImages(np.zeros((N, 0, 0), np.uint8))}
    )
    assert complete((), no_films, OWNERS) == ()
