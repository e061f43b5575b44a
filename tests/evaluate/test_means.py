from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from lucency.errors import DataError
from lucency.evaluate.means import mean


def test_with_one_film_a_patient_it_is_student_s_interval() -> None:
    values = np.random.default_rng(1).normal(size=9)
    found = mean(values, [str(i) for i in range(9)])
    half = t.ppf(0.975, 8) * values.std(ddof=1) / 3
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half)
    assert found.high == pytest.approx(values.mean() + half)
    assert found.n == 9


def test_copies_of_a_film_add_no_certainty() -> None:
    values = [0.1, 0.5, 0.3]
    once, thrice = mean(values, list("abc")), mean(np.repeat(values, 3), np.repeat(list("abc"), 3))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_what_has_no_interval_says_why() -> None:
    assert mean([], []).reason == "no image to count"
    found = mean([1.0, 2.0], ["a", "a"])
    assert (found.value, found.low) == (1.5, None)
    assert "one patient" in str(found.reason)


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        mean([np.nan], ["a"])
    with pytest.raises(DataError, match="same length"):
        mean([1.0], ["a", "b"])
