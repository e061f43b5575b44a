from __future__ import annotations

import json
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from lucency.errors import DataError
from lucency.evaluate.intervals import wilson
from lucency.evaluate.rates import no_rate, rate


def names(n):
    return [f"p{i}" for i in range(n)]


def test_counts_and_share():
    successes = np.array([True, False, True, True])
    result = rate(successes, names(4), np.random.default_rng(0))
    assert (result.successes, result.trials, result.value) == (3, 4, 0.75)
    assert result.low < 0.75 < result.high
    assert result.reason is None


def test_one_film_a_patient_is_nearly_the_plain_interval():
    successes = np.arange(400) % 4 == 0
    result = rate(successes, names(400), np.random.default_rng(1), n_resamples=5000)
    plain = binomtest(100, 400).proportion_ci(method="wilson")
    assert (result.low, result.high) == pytest.approx((plain.low, plain.high), abs=0.004)


def test_alike_films_count_as_one_patient():
    successes = np.arange(60) % 3 == 0
    alone = rate(successes, names(60), np.random.default_rng(2), n_resamples=5000)
    ten_films = np.repeat(successes, 10), np.repeat(names(60), 10).tolist()
    tenfold = rate(*ten_films, np.random.default_rng(2), n_resamples=5000)
    assert tenfold.trials == 600
    assert (tenfold.low, tenfold.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_opposite_films_never_count_as_more_than_the_images():
    successes = np.array([True, False] * 5)
    ids = np.repeat(names(5), 2).tolist()
    result = rate(successes, ids, np.random.default_rng(3))
    assert (result.low, result.high) == pytest.approx(wilson(0.5, 10, df=4))


@pytest.mark.parametrize("outcome", [True, False])
def test_agreement_is_bounded_by_the_number_of_patients(outcome):
    ids = [f"p{i // 3}" for i in range(30)]
    result = rate(np.full(30, outcome), ids, np.random.default_rng(4))
    bound = beta.ppf(0.025, 10, 1)
    expected = (bound, 1.0) if outcome else (0.0, 1 - bound)
    assert (result.low, result.high) == pytest.approx(expected)


def test_a_single_patient():
    successes = np.array([True, True, False, True])
    result = rate(successes, ["a"] * 4, np.random.default_rng(5))
    assert result.value == 0.75
    assert result.low < 0.05
    assert result.high > 0.98


def test_nothing_to_count():
    result = rate(np.zeros(0, dtype=bool), [], np.random.default_rng(6), reason="none here")
    assert result == no_rate("none here")
    assert json.loads(result.model_dump_json())["value"] is None


def test_a_seed_repeats_itself():
    successes, ids = np.arange(50) % 7 == 0, [f"p{i // 2}" for i in range(50)]
    first = rate(successes, ids, np.random.default_rng(7))
    assert first == rate(successes, ids, np.random.default_rng(7))
    assert fmean([first.low, first.high]) != first.value


@pytest.mark.parametrize("wrong", [np.array([0.1, 0.9]), np.array([0, 1]), np.ones((2, 2), bool)])
def test_refuses_what_is_not_a_claim(wrong):
    with pytest.raises(DataError, match="booleans"):
        rate(wrong, names(2), np.random.default_rng(8))


def test_refuses_another_number_of_patients():
    with pytest.raises(DataError, match="patient_ids 3"):
        rate(np.array([True, False]), names(3), np.random.default_rng(9))
