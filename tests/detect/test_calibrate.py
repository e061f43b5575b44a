"""From effects to p-values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from lucency.detect.false_discovery import benjamini_hochberg
from lucency.detect.images.calibrate import conformal_p, fit_scale, score
from lucency.detect.images.evidence import Evidence, concatenate

scores = st.lists(st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=40)


def _evidence(effects: np.ndarray, groups: tuple[int, ...] | None = None) -> Evidence:
    n_columns = effects.shape[1]
    zeros = np.zeros_like(effects)
    return Evidence(
        effects=effects,
        findings=np.arange(n_columns),
        groups=np.array(groups or range(n_columns)),
        logits=zeros,
        repaired=zeros,
    )


@given(calibration=scores, suspicion=scores)
def test_conformal_p_by_its_definition(calibration: list[float], suspicion: list[float]) -> None:
    """p = (1 + #{S_i >= S}) / (n + 1), ties counted against the suspicion."""
    found = conformal_p(np.array(calibration), np.array(suspicion))
    for p, s in zip(found, suspicion, strict=True):
        assert p == (1 + sum(c >= s for c in calibration)) / (len(calibration) + 1)


@given(calibration=scores, suspicion=scores)
def test_conformal_p_stays_in_its_range_and_falls(
    calibration: list[float], suspicion: list[float]
) -> None:
    ordered = np.sort(suspicion)
    p = conformal_p(np.array(calibration), ordered)
    assert p.min() >= 1 / (len(calibration) + 1)
    assert p.max() <= 1
    assert (np.diff(p) <= 0).all()


def test_p_values_of_exchangeable_scores_are_uniform() -> None:
    """One suspect for each of 3000 calibrations; the grid's step filled by noise."""
    generator = np.random.default_rng(0x4B5)
    n, p = 59, []
    for _ in range(3000):
        drawn = generator.standard_cauchy(n + 1)
        p.append(conformal_p(drawn[:n], drawn[n:])[0])
    spread = np.array(p) - generator.random(len(p)) / (n + 1)
    assert kstest(spread, "uniform").pvalue > 0.01


def test_p_values_of_tied_scores_are_never_too_small() -> None:
    generator = np.random.default_rng(0x71)
    n = 39
    drawn = generator.integers(0, 4, (4000, n + 1)).astype(float)
    p = np.array([conformal_p(row[:n], row[n:])[0] for row in drawn])
    for alpha in (0.05, 0.1, 0.25, 0.5):
        # Three standard errors of a share in 4000 draws.
        assert (p <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(p))


def test_the_scale_is_the_median_and_the_95_percent_deviation() -> None:
    effects = np.random.default_rng(1).normal([[2.0, -1.0]], [[3.0, 0.5]], (4001, 2))
    scale = fit_scale(_evidence(effects))
    np.testing.assert_allclose(scale.center, [2.0, -1.0], atol=0.2)
    np.testing.assert_allclose(scale.spread, [1.96 * 3.0, 1.96 * 0.5], rtol=0.05)


def test_columns_of_a_group_share_the_mean_of_their_deviations() -> None:
    effects = np.random.default_rng(1).normal(0, [1.0, 3.0, 10.0, 20.0], (4001, 4))
    scale = fit_scale(_evidence(effects, groups=(7, 7, 2, 2)))
    np.testing.assert_allclose(scale.spread, 1.96 * np.array([2, 2, 15, 15]), rtol=0.05)
    assert scale.spread[0] == scale.spread[1]


def test_a_column_that_never_moves_does_not_divide_by_zero() -> None:
    effects = np.random.default_rng(1).normal(0, 1, (50, 3))
    effects[:, 1] = 0.25
    scale = fit_scale(_evidence(effects))
    assert (scale.spread > 0).all()
    assert np.isfinite(scale.standardise(_evidence(effects))).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_score_is_the_largest_column_in_either_direction(sign: float) -> None:
    generator = np.random.default_rng(3)
    scale = fit_scale(_evidence(generator.normal(0, 1, (200, 4))))
    suspects = np.zeros((2, 4))
    suspects[0, 2] = sign * 30.0
    found = score(_evidence(suspects), scale)
    assert found.column[0] == 2
    assert found.suspicion[0] > 10 > found.suspicion[1]
    assert np.sign(found.standardised[0, 2]) == sign


def test_batches_of_evidence_are_put_together_in_order() -> None:
    effects = np.arange(12.0).reshape(6, 2)
    parts = [_evidence(effects[:4]), _evidence(effects[4:])]
    together = concatenate(parts)
    assert len(together) == 6
    np.testing.assert_array_equal(together.effects, effects)
    assert together.boxes is None


@given(st.lists(st.integers(1, 77).map(lambda k: k / 77), min_size=1, max_size=60))
def test_no_q_value_is_below_its_p_value(p_values: list[float]) -> None:
    """Not by a rounding error either: the largest p-value of n is multiplied by n / n."""
    p = np.array(p_values)
    q = benjamini_hochberg(p)
    assert (q >= p).all()
    assert (q <= 1).all()
