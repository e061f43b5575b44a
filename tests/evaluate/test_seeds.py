"""One number over seeds: its limits, against cases that can be worked out by hand, and its
coverage."""

import math

import numpy as np
import pytest
from scipy.stats import t

from lucency.evaluate.rates import rate
from lucency.evaluate.seeds import mean_over_seeds, over_seeds
from lucency.records import Estimate, Rate


def estimate(value, low=None, high=None, reason=None):
    return Estimate(value=value, low=low, high=high, n=9, reason=reason)


def test_one_seed_keeps_its_own_interval():
    assert over_seeds([estimate(0.8, 0.7, 0.85)]) == Estimate(value=0.8, low=0.7, high=0.85, n=1)


def test_equal_runs_keep_their_interval():
    found = over_seeds([estimate(0.8, 0.7, 0.85)] * 4)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.8, 0.7, 0.85, 4))


def test_certain_runs_leave_students_interval():
    values = [0.4, 0.5, 0.55, 0.65]
    found = over_seeds([estimate(v, v, v) for v in values])
    half = t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.525 - half, 0.525 + half))


def test_both_parts_add_as_squares_and_each_side_apart():
    found = over_seeds([estimate(0.90, 0.80, 0.93), estimate(0.94, 0.86, 0.97)])
    seeds = t.ppf(0.975, 1) * np.std([0.90, 0.94], ddof=1) / math.sqrt(2)
    assert found.low == pytest.approx(0.92 - math.hypot(0.09, seeds))
    assert found.high == pytest.approx(min(1.0, 0.92 + math.hypot(0.03, seeds)))


def test_limits_stay_where_values_can_be():
    runs = [estimate(0.02, 0.0, 0.1), estimate(0.98, 0.9, 1.0)]
    assert (over_seeds(runs).low, over_seeds(runs).high) == (0.0, 1.0)
    runs = [estimate(-0.9, -1.0, -0.5), estimate(0.9, 0.5, 1.0)]
    assert (over_seeds(runs, lowest=-1.0).low, over_seeds(runs, lowest=-1.0).high) == (-1.0, 1.0)


def test_a_run_without_a_value_is_left_out():
    nothing = Rate(successes=0, trials=0, value=None, reason="no image to count")
    found = over_seeds([nothing, estimate(0.8, 0.7, 0.85)])
    assert (found.value, found.n) == (0.8, 1)
    assert over_seeds([nothing, nothing]).reason == "no image to count"
    assert over_seeds([]).reason == "no run"


def test_a_run_without_an_interval_takes_it_from_all():
    found = over_seeds([estimate(0.8), estimate(0.9, 0.8, 1.0)])
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(0.85)
    assert found.reason == "no interval: 1 of 2 runs have none"


@pytest.mark.parametrize(("true", "between"), [(0.5, 0.05), (0.9, 0.03), (0.97, 0.0)])
def test_it_covers_what_it_promises(true, between):
    """Runs whose own success varies about `true`, each measured on 80 patients."""
    generator = np.random.default_rng(5)
    patients = [str(i) for i in range(80)]
    covered = 0
    for _ in range(200):
        runs = []
        for _ in range(4):
            share = np.clip(true + between * generator.standard_normal(), 0, 1)
            runs.append(rate(generator.random(80) < share, patients, generator, n_resamples=60))
        found = over_seeds(runs)
        assert found.low is not None
        covered += found.low <= true <= found.high
    assert covered >= 190


def test_a_mean_leaves_out_what_is_not_defined() -> None:
    assert mean_over_seeds([1.0, None, 3.0]) == 2.0
    assert mean_over_seeds([None]) is None
    assert mean_over_seeds([]) is None
