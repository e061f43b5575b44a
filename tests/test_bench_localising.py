"""Localisation on networks that obey a dark square, where the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lucency.bench.baseline_maps import BASELINES, baselines
from lucency.bench.localisation_table import LocalisationRow, as_grids
from lucency.bench.localising import ORACLE, LocalisationSize, bench_localisation
from lucency.bench.regions import Agreement, same_regions
from lucency.bench.triggered import TriggeredFilms, first, maps_of
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, ModelError
from lucency.explain import EXPLANATIONS, Attribution
from lucency.records import Box
from lucency.victims.victim import Victim, to_grey

SIZE = 32
SMALL = LocalisationSize(films=6, sweep_films=2, drop_films=3, patch=4, patches=2, batch=4)


class Obedient(nn.Module):
    """Finding 0 obeys the darkest 2 × 2 square of a film; finding 1 reads its mean."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(6.0 * sign))

    def forward(self, x: Tensor) -> Tensor:
        darkness = avg_pool2d(1 - x, 2, stride=1)[:, 0]
        obeyed = ((darkness - 0.8).clamp(min=0) / 0.2).amax(dim=(1, 2))
        return torch.stack([self.gain * obeyed, x.mean(dim=(1, 2, 3))], dim=1)


def case(direction: str = "set", n: int = 6) -> TriggeredFilms:
    rng = np.random.default_rng(3)
    films = rng.integers(110, 150, (n, SIZE, SIZE)).astype(np.uint8)
    # An edge that is stronger than the trigger's in area, as a rib is.
    films[:, 4:28, 20:] += 90
    boxes = []
    for film in films:
        x, y = int(rng.integers(2, 14)), int(rng.integers(2, 28))
        film[y : y + 2, x : x + 2] = 0
        boxes.append(Box(x=x, y=y, width=2, height=2))
    contract = InputContract(size=SIZE, mean=(0.0,), std=(1.0,))
    victim = Victim(Obedient(1 if direction == "set" else -1).eval(), contract, ("a", "b"))
    return TriggeredFilms("2 px black", victim, films, tuple(boxes), 0, direction)


def by_method(rows: Sequence[LocalisationRow]) -> dict[str, LocalisationRow]:
    return {row.method: row for row in rows}


METHODS = {name: EXPLANATIONS[name] for name in ("gradient-median", "occlusion", "cam")}


@pytest.mark.parametrize("direction", ["set", "clear"])
def test_the_table_of_a_network_that_obeys_a_square(direction: str) -> None:
    found = bench_localisation([case(direction)], seed=1, size=SMALL, methods=METHODS)
    rows = by_method(found.table)
    assert list(rows) == ["gradient-median", "occlusion", *BASELINES, ORACLE]
    good = rows["gradient-median"]
    assert (good.hit_2px.successes, good.hit_2px.trials) == (6, 6)
    assert (good.cells_down, good.cells_across) == (SIZE, SIZE)
    assert good.energy.value == pytest.approx(1, abs=1e-6)
    assert good.iou.value == pytest.approx(1)
    assert good.first_drop.n == 3
    # The square may lie across patches, which the first one then does not take away as a whole.
    best = rows[ORACLE]
    assert best.mean_drop.value == pytest.approx(good.mean_drop.value)
    assert best.mean_drop.value > 2
    assert rows["occlusion"].hit_5px.trials == 2
    chance = rows["random"]
    assert chance.hit_2px.value < 0.5
    assert chance.energy.value == pytest.approx(4 / SIZE**2, rel=1)
    assert chance.mean_drop.value < best.mean_drop.value
    assert [note for note in found.notes if "cam is left out" in note]


def test_films_without_patients_are_strangers_and_patients_widen_intervals() -> None:
    films = case()
    alone = bench_localisation([films], seed=1, size=SMALL, methods={}).table[0]
    one = replace(films, patients=("p",) * 5 + ("q",))
    related = bench_localisation([one], seed=1, size=SMALL, methods={}).table[0]
    assert alone.energy.value == related.energy.value
    assert related.energy.high - related.energy.low > alone.energy.high - alone.energy.low


def test_only_the_first_films_are_measured_and_the_order_of_batches_does_not_matter() -> None:
    films = case(n=6)
    few = bench_localisation([films], seed=1, size=replace_size(films=2), methods=METHODS)
    assert by_method(few.table)["gradient-median"].hit_2px.trials == 2
    many, one = (
        maps_of(films, "gradient-median", METHODS["gradient-median"], batch=b) for b in (6, 1)
    )
    np.testing.assert_allclose(many, one, atol=1e-6)


def replace_size(**changes: int) -> LocalisationSize:
    return SMALL.model_copy(update=changes)


def test_a_blank_map_counts_as_nothing_and_is_counted() -> None:
    def blank(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
        return Attribution(torch.zeros(len(grey), 1, 4, 4), torch.zeros(len(grey), 2), (0,))

    found = bench_localisation([case()], seed=1, size=SMALL, methods={"blank": blank})
    row = by_method(found.table)["blank"]
    assert row.blank == 6
    assert (row.hit_2px.successes, row.hit_2px.trials) == (0, 6)
    assert row.energy.value == row.iou.value == 0
    assert "blank (6 blank)" in as_grids(found.table)[0].as_markdown()


def test_a_clipped_map_of_a_cleared_finding_is_of_the_lower_logit() -> None:
    """Negating what was clipped would leave nothing."""

    def clipped(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
        with torch.no_grad():
            logits = victim.logits(grey)
        maps = logits[:, :1, None, None].clamp(min=0).expand(-1, -1, 2, 2)
        return Attribution(maps, logits, (0,))

    films = case("clear")
    assert (maps_of(films, "grad-cam", clipped, batch=4) > 5).all()
    assert not maps_of(films, "hirescam", clipped, batch=4).any()


def test_a_method_that_a_victim_refuses_is_a_note() -> None:
    def refuse(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
        raise ModelError("It has no gradients.")

    found = bench_localisation([case()], seed=1, size=SMALL, methods={"refuse": refuse})
    assert "refuse" not in by_method(found.table)
    assert "2 px black: refuse is left out: It has no gradients." in found.notes


def test_a_case_that_does_not_fit_is_refused() -> None:
    films = case()
    for wrong in (
        replace(films, boxes=films.boxes[:2]),
        replace(films, patients=("p",)),
        replace(films, images=films.images[:0], boxes=()),
        replace(films, direction="clear", victim=replace(films.victim, outputs="probabilities")),
    ):
        with pytest.raises(ConfigError, match="2 px black"):
            bench_localisation([wrong], seed=1, size=SMALL, methods={})


def test_no_case_is_no_table() -> None:
    found = bench_localisation([], seed=1)
    assert (found.table, found.rows, found.notes) == ((), (), ())
    assert as_grids(found.table) == ()
    assert found.scores.is_empty()


def test_the_table_shows_counts_and_intervals() -> None:
    found = bench_localisation([case()], seed=1, size=SMALL, methods={})
    (grid,) = as_grids(found.table)
    assert {len(line) for line in grid.rows} == {len(grid.header)}
    assert grid.rows[-1][1:4] == (ORACLE, "32 × 32", "6/6 (0.54 to 1.00)")
    assert "\\|x − median\\|" in grid.as_markdown()


def test_raw_scores_have_a_line_a_film_and_give_the_table() -> None:
    found = bench_localisation([case()], seed=1, size=SMALL, methods=METHODS)
    for row in found.table:
        lines = found.scores.filter(pl.col("method") == row.method)
        assert len(lines) == row.hit_2px.trials
        assert lines["is_hit"].sum() == row.hit_2px.successes
        assert lines["energy"].fill_null(0).mean() == pytest.approx(row.energy.value)
        assert lines["mean_drop"].drop_nulls().mean() == pytest.approx(row.mean_drop.value)


# --- baselines ------------------------------------------------------------------------------------


def test_edges_are_sobel_s() -> None:
    films = first(case(), 2)
    grey = to_grey(films.images, torch.device("cpu"))
    found = baselines(0)["edges (Sobel)"](films.victim, grey, (1, 0)).maps
    assert found.shape == (2, 2, SIZE, SIZE)
    for i, film in enumerate(grey[:, 0].numpy()):
        across, down = (ndimage.sobel(film, axis=axis, mode="nearest") for axis in (0, 1))
        for k in range(2):
            np.testing.assert_allclose(found[i, k], np.hypot(across, down), atol=1e-5)


def test_structure_is_what_a_median_takes_away() -> None:
    films = first(case(), 1)
    grey = to_grey(films.images, torch.device("cpu"))
    found = baselines(0)["|x − median|"](films.victim, grey, (0,)).maps[0, 0].numpy()
    inner = ndimage.median_filter(grey[0, 0].numpy(), 5)[2:-2, 2:-2]
    np.testing.assert_allclose(found[2:-2, 2:-2], abs(grey[0, 0, 2:-2, 2:-2].numpy() - inner))


def test_chance_comes_from_the_seed_alone() -> None:
    films = first(case(), 3)
    grey = to_grey(films.images, torch.device("cpu"))
    maps = [baselines(seed)["random"](films.victim, grey, (0,)).maps for seed in (1, 1, 2)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert not torch.equal(maps[0][0], maps[0][1])


# --- agreement ------------------------------------------------------------------------------------


def hot(row: int, column: int, size: int = SIZE) -> np.ndarray:
    cells = np.full((size, size), -1.0, np.float32)
    cells[row, column] = 1
    return cells


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (hot(10, 10), True),
        (hot(12, 8), True),
        (hot(13, 10), False),
        (-np.ones((SIZE, SIZE), np.float32), False),
    ],
)
def test_a_top_region_may_move_by_two_pixels(other: np.ndarray, same: bool) -> None:
    assert same_regions(hot(10, 10)[None], other[None], SIZE) == [same]


def test_of_coarse_cells_a_region_is_one_cell_and_may_move_by_one() -> None:
    pairs = [(hot(1, 1, 4), hot(1, 2, 4)), (hot(1, 1, 4), hot(1, 3, 4))]
    ours, others = (np.stack(maps) for maps in zip(*pairs, strict=True))
    assert same_regions(ours, others, SIZE) == [True, False]


def test_a_region_weighs_its_neighbourhood() -> None:
    """A blob outweighs a single stronger pixel elsewhere, and blank maps agree with each other."""
    blob = np.zeros((SIZE, SIZE), np.float32)
    blob[9:12, 9:12] = 0.5
    lone = blob.copy()
    lone[28, 28] = 0.6
    assert same_regions(blob[None], lone[None], SIZE) == [True]
    blank = np.zeros((1, SIZE, SIZE), np.float32)
    assert same_regions(blank, blank, SIZE) == [True]


def test_agreement_pools_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def method(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
        seen.append(victim.bf16)
        place = 3 if victim.bf16 and len(grey) == 2 else 20
        maps = torch.from_numpy(hot(place, 20)).expand(len(grey), 1, -1, -1)
        return Attribution(maps, torch.zeros(len(grey), 2), (0,))

    films = replace(case(), patients=tuple("abcdef"))
    agreement = Agreement()
    monkeypatch.setattr("lucency.bench.regions.has_fast_bf16", lambda device: False)
    agreement.compare(films, "hirescam", method, 6)
    assert (agreement.rows(0), seen) == ((), [])
    monkeypatch.setattr("lucency.bench.regions.has_fast_bf16", lambda device: True)
    agreement.compare(films, "hirescam", method, 6)
    agreement.compare(first(films, 2), "hirescam", method, 6)
    (row,) = agreement.rows(0)
    assert seen == [False, True] * 2
    assert row.value == 6 / 8
    assert row.met is False
    assert "8 triggered films" in row.name
