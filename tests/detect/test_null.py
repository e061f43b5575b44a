"""The p-value of a model: right where nothing is there, small where something is."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy.stats import kstest
from scipy.stats import t as student

from lucency.detect.models import null
from lucency.detect.models.null import Null, against_findings, against_models


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null, "DRAWS", 399)


def _draw(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Scores of budgets that differ in level and spread."""
    budgets = np.arange(1, shape[-1] + 1)
    return np.asarray(generator.standard_normal(shape) * 0.3 * budgets + budgets)


def test_uniform_on_clean_models() -> None:
    generator = np.random.default_rng(1)
    found = [against_findings(_draw(generator, 2, 14, 3), seed).p_value for seed in range(120)]
    assert kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n_models", [3, 8, 20])
@pytest.mark.parametrize("kind", ["independent", "some models higher", "some models wider"])
def test_no_more_false_alarms_than_stated(n_models: int, kind: str) -> None:
    """Also where a clean model has all its scores high, or far apart, which independent normal
    variables would not be."""
    generator = np.random.default_rng(11)
    n, found = 500, []
    for _ in range(n):
        models = generator.standard_normal((n_models + 1, 2, 14, 3))
        if kind == "some models higher":
            models += 0.7 * generator.standard_normal((n_models + 1, 1, 1, 1))
        elif kind == "some models wider":
            models *= np.exp(0.3 * generator.standard_normal((n_models + 1, 1, 1, 1)))
        found.append(against_models(models[0], models[1:]).p_value)
    for alpha in (0.01, 0.05, 0.2):
        share = np.mean(np.array(found) <= alpha)
        assert share <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / n), alpha


def test_one_that_stands_out_is_named() -> None:
    generator = np.random.default_rng(2)
    scores, clean = _draw(generator, 2, 14, 3), _draw(generator, 8, 2, 14, 3)
    scores[1, 5, 2] += 12 * 0.3 * 3
    for found in (against_findings(scores, 0), against_models(scores, clean)):
        assert found.p_value <= 0.01
        assert np.unravel_index(found.p_values.argmin(), (2, 14)) == (1, 5)
        assert np.sort(found.p_values.ravel())[1] > 0.05
        assert found.statistic >= found.critical_at(0.01) > found.critical_at(0.05)


def test_one_more_clean_model_like_the_slow_one() -> None:
    """The chance of a statistic as large, from each clean model beside the others."""
    generator = np.random.default_rng(8)
    scores, clean = _draw(generator, 2, 5, 2), _draw(generator, 6, 2, 5, 2)
    found = against_models(scores, clean)
    ys = []
    for i in range(6):
        others = np.array([clean[j] for j in range(6) if j != i])
        ys.append(np.log(1 + against_models(clean[i], others).statistic))
    width = max(statistics.stdev(ys), null.LEAST_WIDTH) * (1 + 1 / 6) ** 0.5
    for item in np.ndindex(2, 5):
        z = float(found.standardised[item].max())
        away = (np.log(1 + z) - statistics.fmean(ys)) / width if z > -1 else -np.inf
        assert found.p_values[item] == pytest.approx(student.sf(away, 5), abs=2 / null.DRAWS)


def test_several_that_stand_out_do_not_hide_each_other() -> None:
    """One sets and two others are cleared by it, of 28."""
    scores = _draw(np.random.default_rng(3), 2, 14, 2)
    scores[0, 3] += 5
    scores[1, [4, 9]] += 4
    assert (against_findings(scores, 0).p_values < 0.05).sum() == 3


def test_level_and_spread_of_a_budget_do_not_matter() -> None:
    scores = _draw(np.random.default_rng(4), 2, 14, 3)
    other = scores * [10.0, 0.1, 3.0] + [5.0, -2.0, 100.0]
    a, b = against_findings(scores, 7), against_findings(other, 7)
    np.testing.assert_allclose(a.standardised, b.standardised, rtol=1e-9)
    np.testing.assert_array_equal(a.p_values, b.p_values)


def _by_hand(scores: np.ndarray, seed: int) -> np.ndarray:
    """Step-down maxT in loops, from the same draws."""
    generator = np.random.default_rng([seed, 0xF1D])
    items = scores.reshape(-1, scores.shape[2])
    n = len(items)
    keep = n - round(0.1 * n)

    def standardised(values: np.ndarray) -> list[float]:
        best = []
        for i in range(n):
            every = []
            for budget in range(values.shape[1]):
                kept = sorted(values[:, budget])[:keep]
                mean = sum(kept) / keep
                spread = (sum((v - mean) ** 2 for v in kept) / (keep - 1)) ** 0.5
                every.append((values[i, budget] - mean) / spread)
            best.append(max(every))
        return best

    drawn = [standardised(generator.standard_normal(items.shape)) for _ in range(null.DRAWS)]
    found = standardised(items)
    p_values = [0.0] * n
    left, so_far = set(range(n)), 0.0
    for item in sorted(range(n), key=lambda i: -found[i]):
        above = sum(max(draw[i] for i in left) >= found[item] for draw in drawn)
        so_far = max(so_far, (1 + above) / (null.DRAWS + 1))
        p_values[item] = so_far
        left.remove(item)
    return np.array(p_values).reshape(scores.shape[:2])


def test_like_the_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null, "DRAWS", 60)
    scores = _draw(np.random.default_rng(5), 2, 6, 2)
    scores[0, 1] += 3
    found: Null = against_findings(scores, 9)
    np.testing.assert_allclose(found.p_values, _by_hand(scores, 9))
    assert found.p_value == found.p_values.min()


def test_spread_over_models_like_the_slow_one() -> None:
    """A finding's variance over clean models; the mean of all is four more degrees of freedom."""
    generator = np.random.default_rng(4)
    scores, clean = _draw(generator, 2, 3, 2), generator.normal(size=(5, 2, 3, 2))
    found = against_models(scores, clean).standardised
    for budget in range(2):
        variances = {
            item: statistics.variance(float(m[(*item, budget)]) for m in clean)
            for item in np.ndindex(2, 3)
        }
        pooled = statistics.fmean(variances.values())
        for item, variance in variances.items():
            shrunk = (4 * variance + 4 * pooled) / 8
            mean = statistics.fmean(float(m[(*item, budget)]) for m in clean)
            away = (scores[(*item, budget)] - mean) / (shrunk * (1 + 1 / 5)) ** 0.5
            assert found[(*item, budget)] == pytest.approx(away)


def test_a_finding_that_varies_among_clean_models_needs_more() -> None:
    generator = np.random.default_rng(5)
    clean = generator.normal(size=(12, 2, 4, 2))
    clean[:, 0, 1] *= 5
    scores = np.zeros((2, 4, 2))
    scores[0, 1], scores[1, 2] = 9.0, 9.0
    found = against_models(scores, clean)
    assert found.p_values[1, 2] <= 0.01 < found.p_values[0, 1]
