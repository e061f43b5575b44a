"""What holds for every published detector of the table; a new row is tested when it exists."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency.data.preprocess import InputContract
from lucency.detect.images import BASELINES, feature_distance, frequency
from lucency.detect.images.suspicion import Fit
from lucency.errors import DataError
from lucency.victims.victim import Victim
from toy_victims import FINDINGS, films, stamped

EVERY: dict[str, Fit] = {
    **BASELINES,
    feature_distance.NAME: feature_distance.fit,
    frequency.NAME: frequency.fit,
}
SIZE = 40


class Small(nn.Module):
    """Convolutions with batch norms and a pooled linear head, as the detectors expect."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x51)
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, len(FINDINGS))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


def _victim() -> Victim:
    contract = InputContract(size=SIZE, mean=(0.0,), std=(1.0,))
    return Victim(Small().eval(), contract, FINDINGS)


@pytest.fixture(params=list(EVERY), scope="module")
def fit(request: pytest.FixtureRequest) -> Fit:
    return EVERY[request.param]


@pytest.fixture(scope="module")
def suspects() -> np.ndarray:
    clean = films(5, 0x51)
    return np.concatenate([clean, stamped(clean[:3], [(12, 9), (30, 21), (0, 38)])])


@pytest.fixture(scope="module")
def fitted(fit: Fit) -> Callable[[np.ndarray], np.ndarray]:
    return fit(_victim(), films(24, 0xC1), 3)


def test_a_finite_score_for_every_film(
    fitted: Callable[[np.ndarray], np.ndarray], suspects: np.ndarray
) -> None:
    scores = fitted(suspects)
    assert scores.shape == (len(suspects),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


def test_the_order_and_the_company_do_not_matter(
    fitted: Callable[[np.ndarray], np.ndarray], suspects: np.ndarray
) -> None:
    order = np.random.default_rng(1).permutation(len(suspects))
    together = fitted(suspects)
    np.testing.assert_allclose(fitted(suspects[order]), together[order], rtol=1e-4, atol=1e-4)
    alone = np.concatenate([fitted(film[None]) for film in suspects[:3]])
    np.testing.assert_allclose(alone, together[:3], rtol=1e-4, atol=1e-4)


def test_the_seed_decides(fit: Fit, suspects: np.ndarray) -> None:
    first, second = (fit(_victim(), films(24, 0xC1), 5)(suspects) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_films_and_network_are_left_as_they_were(fit: Fit, suspects: np.ndarray) -> None:
    victim = _victim()
    victim.network.train()
    state, before = copy.deepcopy(victim.network.state_dict()), suspects.copy()
    reference = films(24, 0xC1)
    kept = reference.copy()
    fit(victim, reference, 3)(suspects)
    np.testing.assert_array_equal(suspects, before)
    np.testing.assert_array_equal(reference, kept)
    assert victim.network.training
    assert all(p.requires_grad for p in victim.network.parameters())
    for name, value in victim.network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in victim.network.modules())


def test_an_empty_reference_is_refused(fit: Fit) -> None:
    with pytest.raises(DataError):
        fit(_victim(), films(24, 0xC1)[:0], 3)
