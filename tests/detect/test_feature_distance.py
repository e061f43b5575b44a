"""The distance in features and logits against a slow second implementation, on known answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lucency.detect.images import feature_distance
from lucency.detect.images.feature_distance import (
    FeatureDistanceSettings,
    columns,
    distance,
    embed,
    fit_distance,
)
from lucency.detect.images.whitening import fit_whitening
from lucency.errors import DataError, ModelError
from suspicion_conformance import check_conformance, check_network_is_left
from toy_victims import FINDINGS, Toy, films, stamped, victim

K = len(FINDINGS)
PLACES = [(12, 9), (30, 21), (5, 33)]


# --- a second implementation --------------------------------------------------------------------


def _shrunk_covariance(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ledoit and Wolf 2004, lemma 3.1 to equation 14, with sums over rows."""
    n, d = len(rows), len(rows[0])
    mean = sum(rows) / n
    away = [row - mean for row in rows]
    sample = sum(np.outer(a, a) for a in away) / n
    m = np.trace(sample) / d
    d2 = ((sample - m * np.eye(d)) ** 2).sum() / d
    b2 = min(sum(((np.outer(a, a) - sample) ** 2).sum() / d for a in away) / n**2, d2)
    share = b2 / d2 if d2 else 0.0
    return mean, share * m * np.eye(d) + (1 - share) * sample


class SlowWhitening:
    def __init__(self, rows: np.ndarray, directions: int | None = None, scale: bool = True) -> None:
        self.centre = np.array([np.median(column) for column in rows.T])
        spread = np.array([np.quantile(abs(c - np.median(c)), 0.68) for c in rows.T])
        self.spread = np.maximum(spread, 0.3 * np.median(spread)) if scale else np.ones(len(spread))
        scaled = [(row - self.centre) / self.spread for row in rows]
        self.axes = np.eye(rows.shape[1])
        if directions is not None:
            away = [row - sum(scaled) / len(scaled) for row in scaled]
            _, vectors = np.linalg.eigh(sum(np.outer(a, a) for a in away))
            self.every_axis, self.middle = vectors[:, ::-1], sum(scaled) / len(scaled)
            self.axes = self.every_axis[:, : max(min(directions, len(rows) // 3), 1)]
        self.mean, self.covariance = _shrunk_covariance([row @ self.axes for row in scaled])

    def deviation(self, row: np.ndarray) -> float:
        away = ((row - self.centre) / self.spread) @ self.axes - self.mean
        return math.sqrt(away @ np.linalg.solve(self.covariance, away))

    def left(self, row: np.ndarray, count: int) -> float:
        """The length of the row, less its share along each of the leading directions in turn."""
        away = (row - self.centre) / self.spread - self.middle
        for axis in self.every_axis.T[: max(count, 1)]:
            away = away - (away @ axis) * axis
        return math.sqrt(sum(away**2))


class SlowDistance:
    def __init__(self, features: np.ndarray | None, logits: np.ndarray, *, folds: int = 5) -> None:
        self.features = None if features is None else SlowWhitening(self.rooted(features), 8)
        self.logits, self.n = SlowWhitening(logits, scale=False), len(logits)
        self.size = np.array([column.std() for column in logits.T])
        if folds:
            apart, pronounced = [], []
            for i in range(len(logits)):
                there = [j for j in range(len(logits)) if j % folds != i % folds]
                own = None if features is None else features[i]
                others = None if features is None else features[there]
                fitted = SlowDistance(others, logits[there], folds=0)
                apart.append(fitted.deviations(own, logits[i]))
                pronounced.append(fitted.pronounced(logits[i]))
            self.power, self.zero, self.one = [], [], []
            for column in zip(*apart, strict=True):
                slope, _ = np.polyfit(np.log(pronounced), np.log(column), 1)
                self.power.append(min(max(slope, 0), 1))
                each = zip(column, pronounced, strict=True)
                values = [d / p ** self.power[-1] for d, p in each]
                self.zero.append(float(np.quantile(values, 0.5)))
                self.one.append(float(np.quantile(values, 0.95)))

    @staticmethod
    def rooted(features: np.ndarray) -> np.ndarray:
        return np.vectorize(lambda f: math.copysign(math.sqrt(abs(f)), f))(features)

    def pronounced(self, logits: np.ndarray) -> float:
        each = zip(logits, self.logits.centre, self.size, strict=True)
        z = [(logit - c) / s for logit, c, s in each]
        return 1 + math.sqrt(sum(value**2 for value in z) / len(z))

    def deviations(self, features: np.ndarray | None, logits: np.ndarray) -> list[float]:
        found = [self.logits.deviation(logits)]
        if self.features is not None and features is not None:
            own = self.rooted(features)
            rest = self.features.left(own, min(self.n // 4, len(own) // 2))
            found = [self.features.deviation(own), rest, *found]
        return found

    def columns(self, features: np.ndarray | None, logits: np.ndarray) -> list[float]:
        size = self.pronounced(logits)
        each = zip(self.deviations(features, logits), self.power, strict=True)
        return [deviation / size**power for deviation, power in each]

    def distance(self, features: np.ndarray | None, logits: np.ndarray) -> float:
        each = zip(self.columns(features, logits), self.zero, self.one, strict=True)
        units = [(value - zero) / (one - zero) for value, zero, one in each]
        return sum(units) / len(units)


def _answers(n: int, seed: int, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, width) ≥ 0 that are led by the findings, and logits (n, K) from them."""
    generator = np.random.default_rng(seed)
    fixed = np.random.default_rng(0xF1)
    shown = generator.random((n, K)) < 0.15
    strength = shown * generator.gamma(4, 0.5, (n, K))
    patterns = fixed.random((K, width)) * (fixed.random((K, width)) < 0.4)
    features = strength @ patterns + generator.gamma(2, 0.1, (n, width))
    logits = 2 * strength - 3 + 0.3 * generator.normal(size=(n, K))
    return features, logits


@pytest.mark.parametrize("with_features", [True, False])
def test_against_a_second_implementation(with_features: bool) -> None:
    features, logits = _answers(30, 1)
    reference = features if with_features else None
    found, slow = fit_distance(reference, logits), SlowDistance(reference, logits)
    others, answers = _answers(8, 2)
    suspects = others if with_features else None
    own = [others[i] if with_features else None for i in range(8)]
    expected = [slow.columns(f, z) for f, z in zip(own, answers, strict=True)]
    np.testing.assert_allclose(columns(found, suspects, answers), expected, rtol=1e-4)
    np.testing.assert_allclose(found.power, slow.power, atol=1e-4)
    np.testing.assert_allclose(found.zero, slow.zero, rtol=1e-4)
    np.testing.assert_allclose(found.one, slow.one, rtol=1e-4)
    np.testing.assert_allclose(
        distance(found, suspects, answers),
        [slow.distance(f, z) for f, z in zip(own, answers, strict=True)],
        rtol=1e-3,
        atol=1e-3,
    )


# --- known answers ------------------------------------------------------------------------------


def _auroc(clean: np.ndarray, triggered: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(clean), len(triggered)])
    return float(roc_auc_score(labels, np.concatenate([clean, triggered])))


@pytest.mark.parametrize("n", [40, 120])
def test_a_finding_that_is_set_without_its_features_stands_out(n: int) -> None:
    found = fit_distance(*_answers(n, 1, width=200))
    clean = _answers(100, 2, width=200)
    features, logits = _answers(100, 3, width=200)
    # The trigger has a direction of its own, and sets the first finding.
    features[:, ::15] += 1.0
    logits[:, 0] += 3
    assert _auroc(distance(found, *clean), distance(found, features, logits)) > 0.9


def test_a_pronounced_answer_is_not_a_strange_one() -> None:
    """Films with many findings lie far out; divided by how pronounced they are, they lie no
    further than others, relative to a film whose pattern no clean film has."""
    found = fit_distance(*_answers(150, 1))
    features, logits = _answers(400, 2)
    n_findings = (logits > -2).sum(axis=1)
    many, few = n_findings >= 2, n_findings == 0
    assert many.sum() > 10
    raw = found.answers.features.deviation(feature_distance._rooted(features))
    measured = columns(found, features, logits)[:, 0]
    assert raw[many].mean() > 1.8 * raw[few].mean()
    assert measured[many].mean() < 1.2 * measured[few].mean()


def test_a_cleared_finding_counts_too() -> None:
    found = fit_distance(None, _answers(80, 1)[1])
    logits = _answers(60, 2)[1]
    cleared = logits.copy()
    cleared[:, 2] -= 9
    assert _auroc(distance(found, None, logits), distance(found, None, cleared)) > 0.95


def test_clean_films_are_in_units() -> None:
    found = fit_distance(*_answers(200, 1))
    others = _answers(300, 2)
    above = (columns(found, *others) > found.one).mean(axis=0)
    assert ((above > 0.01) & (above < 0.15)).all()
    np.testing.assert_allclose((columns(found, *others) > found.zero).mean(axis=0), 0.5, atol=0.15)
    assert abs(np.median(distance(found, *others))) < 0.3


def test_a_few_odd_reference_rows_hardly_matter() -> None:
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(100, 6))
    odd = rows.copy()
    odd[:3, 0] = 80
    assert fit_whitening(odd).centre[0] == pytest.approx(fit_whitening(rows).centre[0], abs=0.15)
    assert fit_whitening(odd).spread[0] == pytest.approx(fit_whitening(rows).spread[0], rel=0.1)


def test_a_column_that_hardly_varies_is_no_certainty() -> None:
    rows = np.random.default_rng(5).normal(size=(50, 6))
    rows[:, 3] = 0.0
    found = fit_whitening(rows)
    assert found.spread[3] == pytest.approx(0.3 * np.median(found.spread))


def test_more_columns_than_rows() -> None:
    features, logits = _answers(12, 1, width=300)
    found = fit_distance(features, logits)
    assert found.answers.features.directions.shape == (300, 4)
    assert np.isfinite(distance(found, *_answers(5, 2, width=300))).all()


# --- edges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_few_reference_films(n: int) -> None:
    found = fit_distance(*_answers(n, 1))
    assert np.isfinite(distance(found, *_answers(5, 2))).all()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_reference_films_are_refused(n: int) -> None:
    features, logits = _answers(3, 1)
    with pytest.raises(DataError, match=f"At least 2 .* got {n}"):
        fit_distance(features[:n], logits[:n])
    with pytest.raises(DataError, match=f"At least 2 .* got {n}"):
        feature_distance.fit(victim(Small()), films(3, 1)[:n], 0)


def test_a_constant_finding_and_copies_of_one_film() -> None:
    features, logits = _answers(30, 1)
    logits[:, 1] = -4.0
    assert np.isfinite(distance(fit_distance(features, logits), features, logits)).all()
    same = fit_distance(features[:1].repeat(10, axis=0), logits[:1].repeat(10, axis=0))
    assert np.isfinite(distance(same, features, logits)).all()


def test_the_arrays_are_left_as_they_were() -> None:
    features, logits = (a.astype(np.float32) for a in _answers(20, 1))
    before = features.copy(), logits.copy()
    distance(fit_distance(features, logits), features, logits)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(logits, before[1])


def test_missing_features_are_named() -> None:
    features, logits = _answers(20, 1)
    with pytest.raises(ModelError, match="features"):
        distance(fit_distance(features, logits), None, logits)


# --- with a victim ------------------------------------------------------------------------------


class Small(nn.Module):
    """A convolution, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 12, 5, stride=2), nn.Linear(12, K)
        generator = torch.Generator().manual_seed(0xD1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)).amax(dim=(2, 3)))


def test_conformance(monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = np.concatenate([films(5, 0x51), stamped(films(3, 0x52), PLACES)])
    monkeypatch.setattr(feature_distance, "BATCH", 3)
    for network in (Small(), Toy()):
        check_conformance(
            feature_distance.fit, victim(network), films(20, 1), suspects, monkeypatch
        )
        check_network_is_left(feature_distance.fit, victim(network), films(20, 1), suspects)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_do_not_matter(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of, images = victim(Small()), films(7, 0x51)
    expected = embed(of, images)
    monkeypatch.setattr(feature_distance, "BATCH", batch)
    features, logits = embed(of, images)
    np.testing.assert_allclose(features, expected[0], atol=1e-5)
    np.testing.assert_allclose(logits, expected[1], atol=1e-5)


def test_what_enters_the_head_is_compared() -> None:
    of, images = victim(Small()), films(4, 0x51)
    features, logits = embed(of, images)
    assert features.shape == (4, 12)
    head = of.network.head
    by_hand = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(logits, by_hand, atol=1e-4)
    before = of.passes.forwards
    feature_distance.fit(of, images, 0)(images[:3])
    assert of.passes.forwards - before == 4 + 3


def test_the_engine_is_asked() -> None:
    def engine(batch: Tensor) -> tuple[Tensor, Tensor]:
        flat = batch.flatten(1)
        return flat[:, :K], flat[:, : 2 * K]

    features, logits = embed(replace(victim(Small()), engine=engine), films(3, 1))
    np.testing.assert_allclose(logits, films(3, 1).reshape(3, -1)[:, :K] / 255, atol=1e-6)
    assert features.shape == (3, 2 * K)


def test_triggered_films_are_above_clean_ones() -> None:
    of = victim(Toy())
    suspicion = feature_distance.fit(of, films(80, 0xC1), 0)
    clean = films(30, 0x51)
    triggered = stamped(clean, [PLACES[i % 3] for i in range(30)])
    assert _auroc(suspicion(clean), suspicion(triggered)) > 0.95


def test_the_directions_are_a_setting() -> None:
    features, logits = _answers(60, 1)
    found = fit_distance(features, logits, FeatureDistanceSettings(directions=3))
    assert found.answers.features.directions.shape == (20, 3)
