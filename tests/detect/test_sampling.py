"""Inversion without gradients: as a loop does it, and nearly as good as with gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lucency.detect.models.bending import Bending
from lucency.detect.models.inversion import Family, Search, invert, put_on_all
from lucency.detect.models.sampling import FAR, Sampling, invert_by_sampling
from lucency.detect.models.shading import Shading
from lucency.detect.models.subject import SIGNS, Subject, subject
from lucency.detect.models.whole_film import shading
from lucency.progress import silent
from toy_victims import SIZE, Curved, films, victim

pytestmark = pytest.mark.usefixtures("one_thread")

N = 24
FAMILIES = (Shading("shading", cells=4, strength=0.02), Bending(cells=4))
SAMPLING = Sampling(shared=10, rounds=2, pairs=3, final=8)


def _subject() -> Subject:
    return subject(victim(Curved()), films(N, 5))


def _slow(model: Subject, family: Family, seed: int, sampling: Sampling) -> np.ndarray:
    """The same, a pair and a film at a time."""
    generator = np.random.default_rng([seed, 0xE5])
    others = generator.permutation(N)[sampling.final :]
    k = model.n_findings
    draw = torch.Generator().manual_seed(int(generator.integers(2**31)))

    def border(n: int) -> list[torch.Tensor]:
        tried = FAR * family.start(n, SIZE, draw)
        return [family.within(tried[i : i + 1]) for i in range(n)]

    def logit(parameters: torch.Tensor, film: int, finding: int) -> float:
        shown = family.put(parameters, model.films[film][None])
        found = float(model.victim.logits(shown)[0, finding].detach())
        return (found - model.logits[film, finding]) / model.spread[finding]

    def toward(pairs: list[tuple[torch.Tensor, float]]) -> torch.Tensor:
        uphill = sum(rise * step for step, rise in pairs)
        assert isinstance(uphill, torch.Tensor)
        return family.within(FAR * uphill / uphill.abs().max())

    tried = border(sampling.shared)
    rows = generator.choice(others, sampling.shared, replace=len(others) < sampling.shared)
    own = []
    for direction in range(2):
        for finding in range(k):
            sign = SIGNS[direction]
            own.append(
                toward(
                    [
                        (e, sign * (logit(e, r, finding) - logit(-e, r, finding)) / 2)
                        for e, r in zip(tried, rows, strict=True)
                    ]
                )
            )
    for _ in range(sampling.rounds):
        n = 2 * k * sampling.pairs
        rows = generator.choice(others, n, replace=len(others) < n)
        tried = border(n)
        for item in range(2 * k):
            direction, finding = divmod(item, k)
            pairs = []
            for p in range(item * sampling.pairs, (item + 1) * sampling.pairs):
                ways = [
                    logit(
                        family.within(own[item] + s * sampling.reach * tried[p]),
                        int(rows[p]),
                        finding,
                    )
                    for s in (1, -1)
                ]
                pairs.append((tried[p], SIGNS[direction] * (ways[0] - ways[1]) / 2))
            own[item] = family.within(own[item] + sampling.reach * toward(pairs))
    return torch.cat(own).numpy()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_like_the_slow_one(family: Family) -> None:
    model = _subject()
    found = invert_by_sampling(model, family, 3, SAMPLING)
    expected = _slow(model, family, 3, SAMPLING)
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found.parameters.numpy(), expected, atol=0.02 * largest)


def _effect(model: Subject, family: Family, parameters: Tensor) -> float:
    """Mean movement over items and all films: what both ways of searching climb."""
    every, k = np.arange(len(model.films)), model.n_findings
    found = []
    for item in range(2 * k):
        changed = put_on_all(family, parameters[item : item + 1], model.films)
        found.append(model.moved(changed, every)[:, item // k, item % k].mean())
    return float(np.mean(found))


@pytest.mark.parametrize(("family", "share"), list(zip(FAMILIES, (0.6, 0.35), strict=True)))
def test_beside_gradients(family: Family, share: float) -> None:
    model = _subject()
    found = invert_by_sampling(model, family, 0)
    learned = invert(model, family, 0, Search(steps=40, preservation=0))
    by_gradients = _effect(model, family, learned.parameters)
    assert _effect(model, family, found.parameters) > share * by_gradients > 0


def test_beside_chance() -> None:
    model, family = _subject(), FAMILIES[0]
    found = invert_by_sampling(model, family, 0)
    random = family.within(FAR * family.start(8, SIZE, torch.Generator().manual_seed(9)))
    assert _effect(model, family, found.parameters) > 3 * abs(_effect(model, family, random))


def test_within_its_budget_and_passes() -> None:
    model, family = _subject(), Shading("shading", cells=4, strength=0.02)
    before = replace(model.victim.passes)
    found = invert_by_sampling(model, family, 0, SAMPLING)
    spent = model.victim.passes.since(before)
    assert spent.backwards == 0
    searching = 2 * SAMPLING.shared + 4 * 4 * SAMPLING.pairs * SAMPLING.rounds
    assert searching < spent.forwards <= searching + 8 * SAMPLING.final
    torch.testing.assert_close(family.within(found.parameters), found.parameters)


def test_a_model_without_gradients_is_searched_so() -> None:
    model = _subject()
    blind = replace(model, victim=replace(model.victim, differentiable=False))
    evidence = shading(blind, 0, silent)
    assert evidence.needs == "outputs"
    assert evidence.scores.shape == (2, 4, 1)
    assert blind.victim.passes.backwards == 0
