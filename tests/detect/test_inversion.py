"""Trigger inversion: families keep their budgets, and what they find is what loops find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lucency.detect.models import neural_cleanse
from lucency.detect.models.bending import Bending
from lucency.detect.models.inversion import Family, Search, invert, reached
from lucency.detect.models.mm_bd import Ascent, maximum_margin
from lucency.detect.models.neural_cleanse import Cleanse, anomaly_index, cleanse
from lucency.detect.models.patch_inversion import Patch
from lucency.detect.models.shading import Shading
from lucency.detect.models.subject import DIRECTIONS, SIGNS, Subject, subject
from lucency.errors import ModelError
from toy_victims import SIZE, Curved, Toy, films, victim

N = 24
SEARCH = Search(steps=5, films=3, final=8)
CORNERS = np.tile([[7, 9]], (8, 1))
FAMILIES = (
    Patch(3, CORNERS),
    Shading("coarse shading", cells=8),
    Shading("fine shading", cells=0, strength=0.01),
    Bending(),
)


def _subject(network: torch.nn.Module) -> Subject:
    return subject(victim(network), films(N, 5))


def _start(family: Family, n: int = 8) -> torch.Tensor:
    return family.start(n, SIZE, torch.Generator().manual_seed(1))


class TestFamilies:
    @pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
    def test_within_is_a_projection(self, family: Family) -> None:
        wild = _start(family) + 3 * torch.randn_like(_start(family))
        once = family.within(wild)
        torch.testing.assert_close(family.within(once), once)

    @pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
    def test_films_stay_films_and_are_not_touched(self, family: Family) -> None:
        grey = _subject(Curved()).films[:8]
        before = grey.clone()
        changed = family.put(family.within(_start(family) * 100), grey)
        assert changed.shape == grey.shape
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
        torch.testing.assert_close(grey, before)

    @pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
    def test_gradients_are_those_of_small_steps(self, family: Family) -> None:
        grey = torch.rand(2, 1, SIZE, SIZE, dtype=torch.float64) * 0.4 + 0.3
        parameters = _start(family)[:2].double().requires_grad_(True)
        weights = torch.rand(2, 1, SIZE, SIZE, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(
            (family.put(parameters, grey) * weights).sum(), parameters
        )
        place = tuple(n - 1 for n in parameters.shape)
        step = torch.zeros_like(parameters)
        step[place] = 1e-6
        with torch.no_grad():
            both = [
                (family.put(parameters + sign * step, grey) * weights).sum() for sign in (1, -1)
            ]
        assert float(gradient[place]) == pytest.approx(float(both[0] - both[1]) / 2e-6, abs=1e-4)

    def test_a_patch_changes_its_square_alone(self) -> None:
        family = Patch(3, CORNERS)
        grey = torch.full((8, 1, SIZE, SIZE), 0.5)
        parameters = torch.cat([torch.from_numpy(CORNERS).float(), torch.full((8, 9), 0.9)], dim=1)
        changed = family.put(parameters, grey)[0, 0]
        expected = torch.full((SIZE, SIZE), 0.5)
        expected[7:10, 9:12] = 0.9
        torch.testing.assert_close(changed, expected)

    def test_shading_has_the_strength_that_it_says(self) -> None:
        for family in (Shading("a", 8, 0.03), Shading("b", 0, 0.03)):
            strong = family.within(_start(family) * 100)
            size = strong.square().mean(dim=(1, 2, 3)).sqrt()
            torch.testing.assert_close(size, torch.full((8,), 0.03))

    def test_a_warp_of_nothing_is_the_film_and_none_goes_too_far(self) -> None:
        family = Bending(strength=0.05)
        ramp = torch.linspace(0, 1, SIZE).expand(1, 1, SIZE, SIZE)
        still = torch.zeros(1, 2, family.cells, family.cells)
        torch.testing.assert_close(family.put(still, ramp), ramp, atol=1e-5, rtol=0)
        right = torch.stack([torch.full((family.cells, family.cells), v) for v in (0.05, 0.0)])
        moved = family.put(family.within(right[None] * 9), ramp)
        # Of a ramp of height 1 a twentieth of the side is a twentieth of the height.
        assert float((moved - ramp).abs().max()) == pytest.approx(0.05, abs=2e-3)


def _slow(model: Subject, family: Family, seed: int, search: Search) -> np.ndarray:
    """The same, an item and a film at a time."""
    generator = np.random.default_rng([seed, 0x1CE])
    order = generator.permutation(N)
    others = order[search.final :]
    k = model.n_findings
    start = torch.Generator().manual_seed(int(generator.integers(2**31)))
    parameters = family.within(family.start(2 * k, model.side, start))
    own = [parameters[i : i + 1].clone().requires_grad_(True) for i in range(2 * k)]
    steps = [torch.optim.Adam([p], lr=family.rate) for p in own]
    for _ in range(search.steps):
        drawn = []
        for item in range(2 * k):
            direction, finding = divmod(item, k)
            suited = [f for f in others if model.suitable(DIRECTIONS[direction])[f, finding] > 0]
            drawn.append(generator.choice(suited, search.films, replace=len(suited) < search.films))
        for item in range(2 * k):
            direction, finding = divmod(item, k)
            loss = torch.zeros(())
            for film in drawn[item]:
                shown = family.put(own[item], model.films[int(film)][None])
                z = model.victim.logits(shown)[0]
                change = (z - torch.tensor(model.logits[film])) / torch.tensor(model.spread)
                wanted = SIGNS[direction] * change[finding]
                loss = loss - wanted.clamp(max=search.enough) / len(drawn[item])
                rest = [change[j] ** 2 for j in range(k) if j != finding]
                loss = loss + search.preservation * sum(rest) / len(rest) / len(drawn[item])
            steps[item].zero_grad()
            loss.backward()
            steps[item].step()
            with torch.no_grad():
                own[item].copy_(family.within(own[item]))
    return torch.cat(own).detach().numpy()


class TestInvert:
    @pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
    def test_like_the_slow_one(self, family: Family) -> None:
        model = _subject(Curved())
        found = invert(model, family, 3, SEARCH)
        expected = _slow(model, family, 3, SEARCH)
        np.testing.assert_allclose(found.parameters.numpy(), expected, atol=2e-4)

    def test_learned_greys_do_more_than_one_grey(self) -> None:
        model = _subject(Curved())
        found = invert(model, Patch(3, CORNERS), 0, Search(steps=40, films=8, preservation=0))
        final = np.random.default_rng([0, 0x1CE]).permutation(N)[:12]
        for grey in (0.0, 0.5, 1.0):
            flat = torch.cat([torch.from_numpy(CORNERS).float(), torch.full((8, 9), grey)], dim=1)
            assert (found.moved > reached(model, Patch(3, CORNERS), flat, final)).sum() >= 7

    def test_counts_its_passes(self) -> None:
        model = _subject(Curved())
        before = replace(model.victim.passes)
        invert(model, Bending(), 0, SEARCH)
        assert model.victim.passes.backwards - before.backwards == 5 * 8 * 3

    def test_needs_gradients(self) -> None:
        model = _subject(Curved())
        blind = replace(model, victim=replace(model.victim, differentiable=False))
        with pytest.raises(ModelError, match="gradients"):
            invert(blind, Bending(), 0, SEARCH)


def _slow_cleanse(model: Subject, item: tuple[int, int], seed: int, settings: Cleanse) -> float:
    """Neural Cleanse of one label, film by film, as the paper has it."""
    direction, finding = item
    generator = np.random.default_rng([seed, 0x4C])
    start = torch.Generator().manual_seed(int(generator.integers(2**31)))
    raw = torch.rand(2, 1, 1, SIZE, SIZE, generator=start)
    raw = torch.atanh((raw - 0.5) * (2 - 1e-4)).requires_grad_(True)
    adam = torch.optim.Adam([raw], lr=0.1, betas=(0.5, 0.9))
    weight, up, down, best = 1e-3, 0, 0, float(SIZE**2)
    bound = np.quantile(model.logits[:, finding], 0.95 if direction == 0 else 0.05)
    for _ in range(settings.steps):
        suited = np.flatnonzero(model.suitable(DIRECTIONS[direction])[:, finding])
        rows = generator.choice(suited, settings.films, replace=len(suited) < settings.films)
        mask, pattern = torch.tanh(raw) / 2 + 0.5
        loss, obeyed = weight * mask.sum(), 0
        for row in rows:
            z = model.victim.logits((1 - mask) * model.films[int(row)] + mask * pattern)[0, finding]
            target = torch.tensor(1.0 if direction == 0 else 0.0)
            loss = loss + binary_cross_entropy_with_logits(z, target) / len(rows)
            obeyed += int((float(z.detach()) > bound) == (direction == 0))
        good = obeyed / len(rows) >= settings.success
        if good and float(mask.detach().sum()) < best:
            best = float(mask.detach().sum())
        up, down = (up + 1, 0) if good else (0, down + 1)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if up >= 5:
            weight, up, down = weight * 1.5, 0, 0
        elif down >= 5:
            weight, up, down = weight / 1.5**1.5, 0, 0
    return best


class TestNeuralCleanse:
    @pytest.mark.parametrize("item", [(0, 0), (1, 0), (0, 3)])
    def test_like_the_slow_one(self, item: tuple[int, int]) -> None:
        model, settings = _subject(Toy()), Cleanse(steps=25, films=4)
        found = cleanse(model, [item], 5, settings)
        assert found.area[0] == pytest.approx(_slow_cleanse(model, item, 5, settings), rel=1e-3)

    def test_the_backdoored_label_needs_the_smallest_mask(self) -> None:
        model = _subject(Toy())
        items = [(d, k) for d in range(2) for k in range(4)]
        found = cleanse(model, items, 0, Cleanse(steps=150, films=4))
        assert items[int(found.area.argmin())] == (0, 0)
        assert model.victim.passes.backwards == 150 * 8 * 4
        assert found.obeyed[0]
        assert float(found.mask[0].sum()) == pytest.approx(found.area[0], rel=1e-4)

    def test_anomaly_index(self) -> None:
        areas = np.array([10.0, 50.0, 55.0, 45.0, 60.0])
        # Median 50, deviations 40, 0, 5, 5, 10: their median 5.
        np.testing.assert_allclose(
            anomaly_index(areas), [40 / 7.413, 0, 0, 5 / 7.413, 0], rtol=1e-3
        )
        assert neural_cleanse.PUBLISHED.steps == 1000


def test_the_largest_margin_like_the_slow_one() -> None:
    model = _subject(Curved())
    found = maximum_margin(model, 4, Ascent(steps=6))
    assert found.shape == (2, 4)
    draw = torch.Generator().manual_seed(4)
    images = torch.rand(2 * 4, 1, SIZE, SIZE, generator=draw)
    mean, spread = model.logits.mean(axis=0), model.spread
    best = np.full((2, 4), -np.inf)
    for i, (direction, finding) in enumerate(np.ndindex(2, 4)):
        image = images[i : i + 1].clone().requires_grad_(True)
        adam = torch.optim.Adam([image], lr=0.05)
        for _ in range(6):
            z = model.victim.logits(image)[0]
            driven = SIGNS[direction] * (z[finding] - mean[finding]) / spread[finding]
            best[direction, finding] = max(best[direction, finding], float(driven.detach()))
            adam.zero_grad()
            (-driven).backward()
            adam.step()
            with torch.no_grad():
                image.clamp_(0, 1)
    np.testing.assert_allclose(found, best, rtol=1e-3)
