from __future__ import annotations

import numpy as np
import pytest

from lucency.errors import DataError
from lucency.evaluate.bootstrap import draw_resamples, patient_index, patient_weights

IDS = ("b", "a", "b", "c", "a", "b")


def test_films_of_a_patient_move_together():
    weights = patient_weights(IDS, 500, np.random.default_rng(0))
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 0], weights[:, 5])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)


def test_patients_are_drawn_evenly_with_replacement():
    counts = draw_resamples(IDS, 20_000, np.random.default_rng(1)).counts
    assert counts.shape == (3, 20_000)
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=0.03)
    np.testing.assert_allclose(counts.var(axis=1), 2 / 3, atol=0.03)  # multinomial: 1 - 1 / P


def test_a_seed_is_a_draw_whatever_the_order_of_the_images():
    first = patient_weights(IDS, 50, np.random.default_rng(2))
    again = patient_weights(IDS[::-1], 50, np.random.default_rng(2))
    np.testing.assert_array_equal(first, again[:, ::-1])


def test_no_images():
    resamples = draw_resamples((), 10, np.random.default_rng(3))
    assert resamples.counts.shape == (0, 10)
    assert len(patient_index(())) == 0


def test_refuses_a_single_resample():
    with pytest.raises(DataError, match="at least 2"):
        draw_resamples(IDS, 1, np.random.default_rng(4))
