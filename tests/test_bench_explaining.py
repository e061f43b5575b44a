"""The peers give the maps that ours are compared with, and the benchmark runs. No times here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from lucency.bench import Benchmark, write_benchmark
from lucency.bench.contests import FINDINGS, ExplainingSize, contests
from lucency.bench.explaining import (
    _differences,
    _fight,
    _random_victim,
    bench_explaining,
    largest_difference,
)
from lucency.bench.localising import LocalisationSize, bench_localisation
from lucency.bench.peers import GreyModel, as_toolkit
from lucency.bench.record import at_least, at_most
from lucency.bench.toolkits import captum, grad_cam_toolkit
from lucency.bench.triggered import TriggeredFilms
from lucency.data.preprocess import InputContract
from lucency.errors import LucencyError
from lucency.explain import EXPLANATIONS
from lucency.records import Box
from lucency.victims.victim import Victim

try:
    captum()
    grad_cam_toolkit()
except LucencyError as error:  # The sentence says what is missing.
    pytest.skip(str(error), allow_module_level=True)

SMALL = ExplainingSize(
    architecture="densenet-small",
    size=32,
    images=2,
    path_images=1,
    sweep_images=2,
    peer_sweep_images=1,
    peer_sweep_findings=1,
    steps=2,
    window=16,
    stride=12,
    masks=3,
    batch=2,
    repeats=1,
    localisation=LocalisationSize(films=2, sweep_films=1, drop_films=1, patches=1),
)


@pytest.fixture(scope="module")
def victim() -> Victim:
    return _random_victim(SMALL, InputContract(size=32), seed=4)


def grey(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(8))


def test_the_peers_network_gives_the_same_logits_in_the_default_layout(victim: Victim) -> None:
    model = GreyModel(victim)
    with torch.no_grad():
        torch.testing.assert_close(model(grey()), victim.logits(grey()), atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(victim.network.parameters(), model.network.parameters(), strict=True):
        assert theirs.is_contiguous()
        assert theirs.data_ptr() != ours.data_ptr()
    aligned = GreyModel(victim, torch.channels_last).network.features.conv0.weight
    assert aligned.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("place", range(10))
def test_each_peer_gives_the_same_maps(victim: Victim, place: int) -> None:
    contest = contests(victim, SMALL)[place]
    found = contest.ours(victim, grey(), (3, 0)).maps
    if contest.drawn:
        found = as_toolkit(found, 32)
    expected = contest.peer(grey(), (3, 0))
    assert found.shape == expected.shape
    difference = largest_difference(found, expected)
    if contest.differs:
        # Noise of its own is the one difference that is known.
        assert difference > 1e-3
    else:
        assert difference < 1e-4


def test_maps_are_compared_with_the_peer_in_our_layout(victim: Victim) -> None:
    gap = 0.5

    def off(images: Tensor, findings: Sequence[int]) -> Tensor:
        return contest.ours(victim, images, findings).maps * (1 + gap)

    contest = replace(contests(victim, SMALL)[0], peer=off)
    aligned = contests(victim, SMALL, torch.channels_last)[0].peer
    judged, beside = _differences(contest, aligned, victim, grey(), SMALL)
    assert judged.met
    assert judged.value < 1e-5
    assert beside.bar is None
    assert beside.value == pytest.approx(gap / (1 + gap))


def test_the_largest_difference_is_relative_to_each_map() -> None:
    peer = torch.zeros(2, 2, 3, 3)
    peer[:, :, 0, 0] = torch.tensor([[1.0, 10.0], [100.0, -4.0]])
    ours = peer.clone()
    ours[1, 1, 2, 2] = 0.5
    ours[1, 0, 2, 2] = 1.0
    assert largest_difference(ours, peer) == pytest.approx(0.125)
    assert largest_difference(peer, peer) == 0


def test_every_method_of_the_command_line_has_a_contest(victim: Victim) -> None:
    names = [contest.name.split(",")[0] for contest in contests(victim, SMALL)]
    assert sorted(names) == sorted(EXPLANATIONS)


def test_the_benchmark_runs(
    victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of all methods RISE alone takes a thousand forwards.
    methods = {"gradient-median": EXPLANATIONS["gradient-median"]}
    some = {"gradient-median", "cam", "rise"}
    monkeypatch.setattr(
        "lucency.bench.explaining.contests",
        lambda *given: [c for c in contests(*given) if c.name.split(",")[0] in some],
    )
    few = partial(bench_localisation, methods=methods)
    monkeypatch.setattr("lucency.bench.explaining.bench_localisation", few)
    images = (grey(2)[:, 0].numpy() * 255).astype("uint8")
    films = TriggeredFilms("a case", victim, images, (Box(x=3, y=3, width=2, height=2),) * 2, 1)
    result = bench_explaining(1, size=SMALL, cases=[films])
    rows = {row.name: row for row in result.rows}
    assert rows["cam: pytorch-grad-cam ÷ ours"].bar == at_least(14)
    assert rows["rise, 3 masks: a plain loop ÷ ours"].bar == at_least(14)
    assert rows["gradient-median: Captum ÷ ours"].bar == at_least(1.5)
    assert rows["gradient-median: Captum ÷ ours in bf16"].bar == at_least(3.5)
    same = [row for name, row in rows.items() if name.endswith("largest value")]
    assert len(same) == 3
    for row in same:
        assert row.bar == at_most(1e-4)
        assert row.met
    (grid,) = result.grids
    assert {line[0] for line in grid.rows} == {"a case"}
    write_benchmark(tmp_path, result)
    stored = (tmp_path / "bench-explain.json").read_text(encoding="utf-8")
    assert Benchmark.model_validate_json(stored).as_markdown() == result.as_markdown()
    assert json.loads(stored)["schema"] == "lucency/bench/1"
    text = (tmp_path / "bench-explain.md").read_text(encoding="utf-8")
    assert "| a case | gradient-median |" in text
    assert len(pl.read_parquet(tmp_path / "bench-explain.parquet")) == 2 * len(grid.rows)


def test_seconds_are_scaled_to_all_images_and_findings(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every job taking one second, seconds are the scale alone."""
    chosen = [
        replace(contest, differs="not asked")
        for contest in contests(victim, SMALL)
        if contest.name in ("gradient-median", "smoothgrad, 2 samples", "rise, 3 masks")
    ]
    monkeypatch.setattr("lucency.bench.explaining.contests", lambda *_: chosen)
    monkeypatch.setattr(
        "lucency.bench.explaining.interleave",
        lambda jobs, repeats, advance: dict.fromkeys(jobs, (1.0,)),
    )
    result = bench_explaining(1, size=SMALL)
    rows = {row.name: row.value for row in result.rows}
    assert rows["gradient-median: ours"] == rows["gradient-median: Captum"] == 1
    assert rows["smoothgrad, 2 samples: ours"] == 2
    assert rows["rise, 3 masks: ours"] == 1
    assert rows["rise, 3 masks: a plain loop"] == 2 * len(FINDINGS)
    assert rows["rise, 3 masks: a plain loop ÷ ours"] == 2 * len(FINDINGS)
    assert result.grids == ()
    assert result.scores is None


def test_a_peer_is_called_for_its_own_images_and_findings_only(victim: Victim) -> None:
    asked: list[tuple[int, tuple[int, ...]]] = []

    def peer(images: Tensor, findings: Sequence[int]) -> Tensor:
        asked.append((len(images), tuple(findings)))
        return torch.zeros(len(images), len(findings), 32, 32)

    contest = replace(contests(victim, SMALL)[-1], peer=peer, differs="a toy")
    _fight(contest, peer, victim, grey(), SMALL, lambda steps: None)
    assert asked == [(1, (0,))] * 2
