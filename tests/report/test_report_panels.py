"""A picture of maps: every pixel of the film and every cell of a map where it belongs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lucency.report.overlay import AGAINST_INK, FOR_INK, OPACITY, blend, blend_signed, enlarge
from lucency.report.panels import Layout, Mark, Panel, Place, arrange, draw_panels


def drawn(film: np.ndarray, *panels: Panel) -> tuple[np.ndarray, Layout, bytes]:
    data = draw_panels(film, panels, title="a title", note="a note")
    picture = Image.open(io.BytesIO(data))
    return np.asarray(picture.convert("RGB")), arrange(film.shape, len(panels)), data


def at(picture: np.ndarray, place: Place, height: int, width: int) -> np.ndarray:
    """The film's pixels in the picture."""
    return picture[
        place.y : place.y + height * place.scale, place.x : place.x + width * place.scale
    ]


FILM = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)


@pytest.mark.parametrize("cells", [(40, 50), (3, 5), (7, 7)])
@pytest.mark.parametrize("n_panels", [1, 6])
def test_each_map_is_drawn_in_its_own_cells(cells: tuple[int, int], n_panels: int) -> None:
    maps = np.random.default_rng(2).random((n_panels, *cells)).astype(np.float32)
    picture, layout, _ = drawn(FILM, *(Panel(str(i), m, 0.0) for i, m in enumerate(maps)))
    assert picture.shape[:2] == (layout.height, layout.width)
    expected = [np.repeat(FILM[:, :, None], 3, axis=2), *(blend(FILM, m) for m in maps)]
    for place, film in zip(layout.places, expected, strict=True):
        block = at(picture, place, 40, 50)
        assert (block == enlarge(film, *block.shape[:2])).all()


def test_one_negative_value_makes_every_map_of_the_picture_two_coloured() -> None:
    maps = [np.full((4, 5), v, np.float32) for v in (0.5, 0.5)]
    maps[1][0, 0] = -0.25
    picture, layout, _ = drawn(FILM, Panel("a", maps[0], 0.0), Panel("b", maps[1], 0.0))
    for place, values in zip(layout.places[1:], maps, strict=True):
        block = at(picture, place, 40, 50)
        assert (block == enlarge(blend_signed(FILM, values), *block.shape[:2])).all()


def test_signed_colours() -> None:
    values = np.array([[1.0, -1.0, 0.25, 0.0, np.nan]], np.float32)
    film = np.full((1, 5), 100, np.uint8)
    colours = blend_signed(film, values).astype(float)[0]
    for column, (share, ink) in enumerate(
        ((1.0, FOR_INK), (1.0, AGAINST_INK), (0.5, FOR_INK), (0.0, FOR_INK), (0.0, FOR_INK))
    ):
        alpha = OPACITY * share
        expected = (1 - alpha) * 100 + alpha * np.array(ink)
        assert np.abs(colours[column] - expected).max() <= 0.5


def test_films_do_not_overlap_and_lie_within_the_picture() -> None:
    for n in (1, 3, 4, 14):
        layout = arrange((224, 224), n)
        assert len(layout.places) == n + 1
        taken = np.zeros((layout.height, layout.width), int)
        for place in layout.places:
            side = 224 * place.scale
            assert place.y + side < layout.height
            assert place.x + side < layout.width
            taken[place.y : place.y + side, place.x : place.x + side] += 1
        assert taken.max() == 1


@pytest.mark.parametrize("mark", [Mark(20, 30, 1, 1), Mark(20, 20, 12, 10), Mark(0, 0, 1, 1)])
def test_the_peak_is_framed_and_the_frame_stays_on_its_film(mark: Mark) -> None:
    values = np.ones((4, 5), np.float32)
    without, layout, _ = drawn(FILM, Panel("a", values, 0.0))
    picture, _, _ = drawn(FILM, Panel("a", values, 0.0, mark))
    rows, columns = np.nonzero((picture != without).any(axis=2))
    place = layout.places[1]
    assert rows.min() >= place.y - 3
    assert columns.min() >= place.x - 3
    x, y = ((v + 0.5) * place.scale for v in (mark.x, mark.y))
    if mark.x:
        assert (rows.min() + rows.max()) / 2 - place.y == pytest.approx(y, abs=1)
        assert (columns.min() + columns.max()) / 2 - place.x == pytest.approx(x, abs=1)
        # What is framed can be seen.
        assert not (picture != without).any(axis=2)[place.y + int(y), place.x + int(x)]


def test_the_same_picture_has_the_same_bytes_and_no_more_than_pixels() -> None:
    panel = Panel("$x$ <b>", np.ones((2, 2), np.float32), -3.0)
    _, _, data = drawn(FILM, panel)
    assert drawn(FILM, panel)[2] == data
    assert Image.open(io.BytesIO(data)).info.keys() <= {"dpi"}


def test_a_map_of_zeros_is_the_film_and_says_so() -> None:
    zeros = Panel("a", np.zeros((4, 5), np.float32), 0.0)
    picture, layout, _ = drawn(FILM, zeros)
    assert (at(picture, layout.places[1], 40, 50) == at(picture, layout.places[0], 40, 50)).all()
    strange = Panel("a", np.full((4, 5), np.nan, np.float32), 1e9)
    assert drawn(FILM, strange)[0].shape == picture.shape
