"""What weights, features and explanations say of a model: each like a slow second one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lucency.data.preprocess import InputContract
from lucency.detect.models import bti_dbf
from lucency.detect.models.bti_dbf import Decoupling, Generator, decoupled, feature_decoupling
from lucency.detect.models.channel_lipschitz import channel_bounds, last_layer, outliers
from lucency.detect.models.mm_bd import margins, maximum_margin
from lucency.detect.models.neuron_inspect import TOP, explanation_statistics, features
from lucency.detect.models.subject import Subject, subject
from lucency.errors import ModelError
from lucency.progress import silent
from lucency.victims.architectures import build
from lucency.victims.victim import Victim, normalise
from toy_victims import Curved, Toy, films, victim

pytestmark = pytest.mark.usefixtures("one_thread")


def _subject(network: nn.Module) -> Subject:
    return subject(victim(network), films(24, 5))


class TestExplanationStatistics:
    def test_like_the_slow_one(self) -> None:
        maps = np.random.default_rng(0).gamma(0.5, size=(5, 3, 20, 20))
        found = features(torch.from_numpy(maps))
        n, k, h, w = maps.shape
        for finding in range(k):
            sparse, smooth, hot = [], [], []
            for film in range(n):
                one = maps[film, finding] / maps[film, finding].max()
                sparse.append(-np.log(one.sum() / (h * w)))
                down = np.mean(
                    [abs(one[y + 1, x] - one[y, x]) for y in range(h - 1) for x in range(w)]
                )
                right = np.mean(
                    [abs(one[y, x + 1] - one[y, x]) for y in range(h) for x in range(w - 1)]
                )
                smooth.append(-np.log(down + right))
                hot.append(set(np.argsort(-one.ravel())[: round(TOP * h * w)]))
            shares = [
                len(hot[i] & hot[j]) / len(hot[i]) for i in range(n) for j in range(n) if i != j
            ]
            persistent = np.log1p(np.mean(shares) * h * w / round(TOP * h * w))
            np.testing.assert_allclose(
                found[finding], [np.mean(sparse), np.mean(smooth), persistent], rtol=1e-6
            )

    def test_each_feature_sees_what_it_is_for(self) -> None:
        noise = torch.rand(8, 4, 30, 30, generator=torch.Generator().manual_seed(1))
        maps = noise.clone()
        maps[:, 1] *= 0.01
        maps[torch.arange(8), 1, torch.arange(8) * 3, torch.arange(8) * 2] = 1.0
        maps[:, 2] = noise[:, 2].cumsum(dim=1).cumsum(dim=2)
        maps[:, 3, 10:13, 10:13] += 2.0
        found = features(maps)
        assert found[:, 0].argmax() == 1
        assert found[[0, 2, 3], 1].argmax() == 1
        assert found[3, 2] > found[0, 2] + 1

    def test_of_a_model(self) -> None:
        evidence = explanation_statistics(_subject(Toy(place=(30, 11))), 0, silent)
        assert evidence.scores.shape == (2, 4, 3)
        np.testing.assert_array_equal(evidence.scores[0], evidence.scores[1])
        assert evidence.recovered is None


class PreActivated(nn.Module):
    """DenseNet's order beside the usual one: conv → norm, then norm → relu → conv on more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.after = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5)
        self.before, self.second = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.last, self.head = nn.BatchNorm2d(4), nn.Linear(4, 4)
        for norm in (self.after, self.before, self.last):
            norm.weight.data = torch.rand(norm.num_features) - 0.5
            norm.running_var = torch.rand(norm.num_features) + 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.after(self.first(x))
        x = torch.cat([x, x[:, :1]], dim=1)
        x = self.second(torch.relu(self.before(x)))
        return self.head(torch.relu(self.last(x * 1.0)).mean(dim=(2, 3)))


class TestChannelBounds:
    def test_like_the_slow_one(self) -> None:
        network = PreActivated().eval()
        found = channel_bounds(victim(network))
        assert [layer.norm for layer in found] == ["after", "before", "last"]

        def largest(matrix: torch.Tensor) -> float:
            return float(np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)[0])

        for layer, norm in zip(found, (network.after, network.before, network.last), strict=True):
            for c in range(norm.num_features):
                if norm is network.after:
                    size = largest(network.first.weight[c].flatten(1))
                elif norm is network.before:
                    size = largest(network.second.weight[:, c].flatten(1))
                else:
                    size = float(network.head.weight[:, c].double().norm())
                scale = abs(float(norm.weight[c])) / float(norm.running_var[c] + norm.eps) ** 0.5
                assert layer.bounds[c] == pytest.approx(size * scale, rel=1e-5)

    def test_every_norm_of_a_densenet_has_bounds(self) -> None:
        network = build("densenet-small", 1, 3, seed=1).eval()
        found = channel_bounds(Victim(network, InputContract(size=32), ("A", "B", "C")))
        norms = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
        assert [layer.norm for layer in found] == norms

    def test_a_channel_that_amplifies_stands_out(self) -> None:
        network = build("densenet-small", 1, 3, seed=1).eval()
        chosen = dict(network.named_modules())["features.transition2.norm"]
        assert isinstance(chosen, nn.BatchNorm2d)
        chosen.weight.data[7] = 40.0
        found = channel_bounds(Victim(network, InputContract(size=32), ("A", "B", "C")))
        above = outliers(found)
        largest = [a.max() for a in above]
        at = int(np.argmax(largest))
        assert found[at].norm == "features.transition2.norm"
        assert int(above[at].argmax()) == 7
        assert largest[at] > 3

    def test_of_the_last_layer(self) -> None:
        network = PreActivated().eval()
        network.head.weight.data[2, 1] = -60.0
        evidence = last_layer(_subject(network), 0, silent)
        assert np.unravel_index(evidence.scores.argmax(), (2, 4, 1))[:2] == (1, 2)
        reach = (
            network.head.weight.detach().numpy()
            * np.abs(network.last.weight.detach().numpy())
            / np.sqrt(network.last.running_var.numpy() + network.last.eps)
        )
        typical = np.sqrt((reach**2).mean(axis=1))
        np.testing.assert_allclose(
            evidence.scores[0, :, 0], np.log1p(reach.max(axis=1).clip(0) / typical), rtol=1e-5
        )

    def test_a_model_without_norms(self) -> None:
        with pytest.raises(ModelError, match="batch norms"):
            channel_bounds(victim(Toy()))
        with pytest.raises(ModelError, match="ends with a norm"):
            last_layer(_subject(Curved()), 0, silent)


def _slow_decoupling(network: Curved, model: Subject, seed: int, s: Decoupling) -> np.ndarray:
    """Film by film, on a network whose features are at hand."""

    def features_of(film: torch.Tensor) -> torch.Tensor:
        x = normalise(film[None], model.victim.contract)
        return torch.tanh(network.second(torch.tanh(network.first(x)))).flatten()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(s.strength)
    clean = [features_of(film).detach() for film in model.films]
    answers = [torch.sigmoid(network.head(f)).detach() for f in clean]
    raw = torch.zeros(len(clean[0]), requires_grad=True)
    adam = torch.optim.Adam([raw], lr=0.1)
    for _ in range(s.mask_steps):
        mask = torch.sigmoid(raw)
        pairs = list(zip(clean, answers, strict=True))
        kept = sum(binary_cross_entropy_with_logits(network.head(f * mask), a) for f, a in pairs)
        lost = sum(
            binary_cross_entropy_with_logits(network.head(f - f * mask), a) for f, a in pairs
        )
        adam.zero_grad()
        (kept / len(pairs) - (lost / len(pairs)).clamp(max=2.0)).backward()
        adam.step()
    mask = torch.sigmoid(raw).detach()
    scale = torch.stack(clean).std(dim=0).clamp(min=1e-6)
    adam = torch.optim.Adam(generator.parameters(), lr=0.01)
    draw = np.random.default_rng([seed, 0xB7])
    for _ in range(s.steps):
        rows = draw.permutation(len(clean))[: s.films]
        moved = [(features_of(generator(model.films[r][None])[0]) - clean[r]) / scale for r in rows]
        stays = torch.stack([(m * mask).square().mean() for m in moved]).mean()
        goes = torch.stack([(m * (1 - mask)).square().mean() for m in moved]).mean()
        adam.zero_grad()
        (s.keep * stays - goes.sqrt()).backward()
        adam.step()
    with torch.no_grad():
        found = [model.victim.logits(generator(film[None]))[0].numpy() for film in model.films]
    change = ((np.stack(found) - model.logits) / model.spread).mean(axis=0)
    return np.stack([change, -change])


class TestFeatureDecoupling:
    def test_like_the_slow_one(self) -> None:
        network, settings = Curved().eval(), Decoupling(mask_steps=8, steps=4, films=5)
        model = _subject(network)
        found = decoupled(model, 2, settings)
        expected = _slow_decoupling(network, model, 2, settings)
        np.testing.assert_allclose(found.moved, expected, rtol=0.02, atol=1e-4)

    def test_as_a_test(self) -> None:
        model = _subject(Curved())
        evidence = feature_decoupling(model, 0, silent)
        assert evidence.scores.shape == (2, 4, 1)
        assert evidence.recovered is not None
        trigger = evidence.recovered(0, 0, 0)
        changed = trigger.put(model.films)
        assert float((changed - model.films).abs().max()) <= bti_dbf.DEFAULT.strength + 1e-6

    def test_needs_gradients(self) -> None:
        model = _subject(Curved())
        blind = replace(model, victim=replace(model.victim, differentiable=False))
        with pytest.raises(ModelError, match="gradients"):
            feature_decoupling(blind, 0, silent)


def test_margins_as_a_test() -> None:
    model = _subject(Curved())
    evidence = margins(model, 3, silent)
    reached = np.log1p(maximum_margin(model, 3).clip(0))
    np.testing.assert_allclose(evidence.scores, reached[..., None])
