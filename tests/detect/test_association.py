"""Labels that go with groups of films."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from lucency.detect.datasets.association import associate


def test_like_fishers_table() -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random((90, 3)) < (0.1, 0.5, 0.9)).astype(np.float32)
    labels[generator.random((90, 3)) < 0.1] = np.nan
    groups = [generator.choice(90, n, replace=False) for n in (1, 7, 40)]
    found = associate(labels, groups)
    for i, rows in enumerate(groups):
        for k in range(3):
            inside = np.isin(np.arange(90), rows)
            known = ~np.isnan(labels[:, k])
            table = [
                [
                    int((known & (inside == side) & (labels[:, k] == value)).sum())
                    for value in (1, 0)
                ]
                for side in (True, False)
            ]
            for direction, way in enumerate(("greater", "less")):
                expected = fisher_exact(table, alternative=way).pvalue
                assert found.p_values[direction, i, k] == pytest.approx(expected)
            if sum(table[0]):
                assert found.shares[i, k] == pytest.approx(table[0][0] / sum(table[0]))


def test_unknown_labels_say_nothing() -> None:
    labels = np.full((20, 1), np.nan, np.float32)
    labels[10:] = 1
    found = associate(labels, [np.arange(5)])
    assert found.p_values.tolist() == [[[1.0]], [[1.0]]]
    assert np.isnan(found.shares[0, 0])
