from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom

from lucency.evaluate.intervals import (
    clopper_pearson,
    logit_interval,
    mean_df,
    student,
    unvarying_interval,
    wilson,
)


@pytest.mark.parametrize(("x", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 20), (19, 20)])
def test_clopper_pearson_leaves_a_fortieth_on_each_side(x, n):
    low, high = clopper_pearson(x, n)
    if x > 0:
        assert binom.sf(x - 1, n, low) == pytest.approx(0.025)
    else:
        assert low == 0
    if x < n:
        assert binom.cdf(x, n, high) == pytest.approx(0.025)
    else:
        assert high == 1


def test_clopper_pearson_of_a_share_of_patients():
    whole, part = clopper_pearson(1, 2), clopper_pearson(1.4, 2)
    assert whole[0] < part[0] < 0.7 < part[1]


def test_wilson_solves_its_equation():
    share, n = 0.3, 40.0
    for bound in wilson(share, n, df=1e9):
        distance = abs(bound - share) / np.sqrt(bound * (1 - bound) / n)
        assert distance == pytest.approx(1.959964, abs=1e-5)
    assert wilson(share, n, df=3)[0] < wilson(share, n, df=1e9)[0]


def test_student_is_wider_for_fewer_patients():
    assert student(1) == pytest.approx(12.706, abs=1e-3)
    assert student(1e9) == pytest.approx(1.960, abs=1e-3)


def test_logit_interval_by_hand():
    resamples = np.array([0.7, 0.8, 0.9])
    half = student(4) * np.std(logit(resamples), ddof=1)
    expected = expit(logit(0.8) - half), expit(logit(0.8) + half)
    assert logit_interval(0.8, resamples, 4, 0.001) == pytest.approx(expected)
    half = student(4) * np.std(logit([0.7, 0.8, 0.99]), ddof=1)
    expected = expit(logit(0.8) - half), expit(logit(0.8) + half)
    assert logit_interval(0.8, np.array([0.7, 0.8, 1]), 4, 0.01) == pytest.approx(expected)


def test_logit_interval_stays_inside_and_around():
    resamples = np.array([1.0, 0.999, 1.0, 0.0])
    for value in (1e-9, 0.5, 0.999, 1 - 1e-12):
        low, high = logit_interval(value, resamples, 1, 1e-4)
        assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("n_pairs", [1, 7, 400])
def test_unvarying_interval(n_pairs):
    agreed = 0.025 ** (1 / n_pairs)
    assert unvarying_interval(1.0, n_pairs) == pytest.approx((agreed, 1.0))
    assert unvarying_interval(0.0, n_pairs) == pytest.approx((0.0, 1 - agreed))
    assert unvarying_interval(0.5, n_pairs) == pytest.approx((agreed / 2, 1 - agreed / 2))
    for value in (0.0, 0.3, 0.5, 1.0):
        low, high = unvarying_interval(value, n_pairs)
        assert 0 <= low <= value <= high <= 1


def test_mean_df():
    assert mean_df(np.array([2.0]), np.array([9.0])) == pytest.approx(9)
    assert mean_df(np.array([1.0, 1.0]), np.array([9.0, 9.0])) == pytest.approx(18)
    assert mean_df(np.array([1.0, 0.0]), np.array([9.0, 1.0])) == pytest.approx(9)
    assert mean_df(np.array([0.0, 0.0]), np.array([9.0, 4.0])) == 4
