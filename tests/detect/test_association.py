"""Labels that go with groups of films."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from lucency.detect.datasets.association import associate
from lucency.detect.false_discovery import benjamini_hochberg


def _table(values: np.ndarray, inside: np.ndarray) -> list[list[int]]:
    known = ~np.isnan(values)
    return [
        [int((known & (inside == side) & (values == value)).sum()) for value in (1, 0)]
        for side in (True, False)
    ]


def test_like_fishers_table() -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random((90, 3)) < (0.1, 0.5, 0.9)).astype(np.float32)
    labels[generator.random((90, 3)) < 0.1] = np.nan
    groups = [generator.choice(90, n, replace=False) for n in (1, 7, 40)]
    of = np.repeat(np.arange(3), [len(g) for g in groups])
    found = associate(labels, np.arange(90), np.concatenate(groups), of, 3)
    for i, rows in enumerate(groups):
        for k in range(3):
            table = _table(labels[:, k], np.isin(np.arange(90), rows))
            for direction, way in enumerate(("greater", "less")):
                expected = fisher_exact(table, alternative=way).pvalue
                assert found.p_values[direction, i, k] == pytest.approx(expected)


def test_a_patient_counts_once() -> None:
    """Ten films of each of 40 patients are as good as one film of each."""
    generator = np.random.default_rng(4)
    once = (generator.random((40, 2)) < 0.3).astype(np.float32)
    expected = associate(once, np.arange(40), np.arange(12), np.zeros(12, np.int64), 1)
    owners = np.repeat(np.arange(40), 10)
    films = np.flatnonzero(owners < 12)
    found = associate(once[owners], owners, films, np.zeros(len(films), np.int64), 1)
    assert found.p_values == pytest.approx(expected.p_values)


def test_a_patient_of_two_minds_counts_in_part() -> None:
    """Half of a patient's films have the finding: for what goes with it that is no more evidence
    than none of them would be, and less than all."""
    labels = np.zeros((40, 1), np.float32)
    labels[:8] = 1
    owners = np.repeat(np.arange(20), 2)
    films, of = np.arange(10), np.zeros(10, np.int64)
    p = []
    for pair in ((0, 0), (1, 0), (1, 1)):
        labels[8:10, 0] = pair
        p.append(associate(labels, owners, films, of, 1).p_values[0, 0, 0])
    assert p[0] == pytest.approx(p[1])
    assert p[2] < p[1]


def test_what_nobody_knows_is_no_evidence() -> None:
    labels = np.full((20, 1), np.nan, np.float32)
    labels[10:] = 1
    found = associate(labels, np.arange(20), np.arange(5), np.zeros(5, np.int64), 1)
    assert found.p_values.tolist() == [[[1.0]], [[1.0]]]


def test_the_smallest_of_many_have_the_q_of_all() -> None:
    p_values = np.random.default_rng(0).random(500) ** 3
    every = benjamini_hochberg(p_values)
    small = p_values < 0.05
    some = benjamini_hochberg(p_values[small], 500)
    # Beyond the largest of them nothing is known that could make a q smaller.
    assert (some >= every[small] - 1e-12).all()
    sure = every[small] < every[~small].min()
    assert sure.any()
    assert some[sure] == pytest.approx(every[small][sure])
