from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import auroc_by_pairs, average_precision_by_thresholds
from sklearn.metrics import average_precision_score, roc_auc_score

from lucency.errors import DataError
from lucency.evaluate.ranking import CHUNK, auprc, auroc, weighted_ranking

LABELS = (0.0, 1.0, 0.0, math.nan)


def decode(raw: bytes) -> tuple[list[float], list[float]]:
    """One byte an image: the low bits are its label, the others one of a few scores."""
    return [LABELS[b % 4] for b in raw], [(b // 4 % 9 - 4) / 3 for b in raw]


@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=16))
def test_auroc_equals_pair_counting(raw):
    labels, scores = decode(raw)
    expected = auroc_by_pairs(labels, scores)
    actual = auroc(labels, scores)
    if expected is None:
        assert actual is None
    else:
        assert actual == pytest.approx(expected, abs=1e-12)


@settings(max_examples=1_000, deadline=None)
@given(st.binary(max_size=16))
def test_auprc_equals_its_definition(raw):
    labels, scores = decode(raw)
    expected = average_precision_by_thresholds(labels, scores)
    actual = auprc(labels, scores)
    if expected is None:
        assert actual is None
    else:
        assert actual == pytest.approx(expected, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(allow_nan=False)), min_size=2, max_size=20))
def test_auroc_ranks_any_float(pairs):
    labels, scores = [float(y) for y, _ in pairs], [s for _, s in pairs]
    assert auroc(labels, scores) == pytest.approx(auroc_by_pairs(labels, scores), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 8])
def test_agrees_with_scikit_learn(decimals):
    generator = np.random.default_rng(0xA1)
    for _ in range(50):
        labels = generator.random(200) < 0.2
        scores = np.round(generator.random(200) + 0.3 * labels, decimals)
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert auprc(labels, scores) == pytest.approx(
            average_precision_score(labels, scores), abs=1e-12
        )


@pytest.mark.parametrize("decimals", [1, 8])
def test_a_weight_equals_repeated_rows(decimals):
    generator = np.random.default_rng(0xA2)
    n, n_resamples = 60, 40
    labels = (generator.random(n) < 0.3).astype(float)
    scores = np.round(generator.random(n), decimals)
    weights = generator.integers(0, 3, size=(n, n_resamples)).astype(float)
    areas, precisions = weighted_ranking(labels, scores, weights, np.arange(n))
    for b in range(n_resamples):
        times = weights[:, b].astype(int)
        repeated = np.repeat(labels, times), np.repeat(scores, times)
        assert areas[b] == pytest.approx(auroc(*repeated), abs=1e-12)
        assert precisions[b] == pytest.approx(auprc(*repeated), abs=1e-12)


def test_chunks_do_not_show():
    generator = np.random.default_rng(0xA3)
    n = CHUNK // 16
    labels, scores = (generator.random(n) < 0.1).astype(float), generator.random(n)
    weights = generator.integers(0, 4, size=(n // 2, 37)).astype(float)
    rows = np.arange(n) % (n // 2)
    together = weighted_ranking(labels, scores, weights, rows)
    for b in (0, 15, 16, 36):
        alone = weighted_ranking(labels, scores, weights[:, b : b + 1], rows)
        assert together[0][b] == alone[0][0]
        assert together[1][b] == pytest.approx(alone[1][0], abs=1e-12)


def test_a_weighting_without_a_class_is_marked():
    weights = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        areas, precisions = weighted_ranking(
            np.array([1.0, 0.0]), np.array([0.2, 0.1]), weights, np.arange(2)
        )
        empty = weighted_ranking(np.zeros(0), np.zeros(0), weights, np.arange(0))
    np.testing.assert_array_equal(areas, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(precisions, [1.0, np.nan, np.nan])
    assert np.isnan(empty).all()


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 1], [0.1, math.nan]),
        ([0, 2], [0.1, 0.2]),
        ([0, 1, 1], [0.1, 0.2]),
        ([[0, 1]], [[0.1, 0.2]]),
        ([0, 1], [[0.1, 0.2], [0.3, 0.4]]),
    ],
)
def test_refuses_what_cannot_be_ranked(labels, scores):
    for metric in (auroc, auprc):
        with pytest.raises(DataError, match="Expected"):
            metric(labels, scores)


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0], [math.nan, math.nan], [1, math.nan]])
def test_undefined_is_none(labels):
    scores = [0.5] * len(labels)
    assert auroc(labels, scores) is None
    assert auprc(labels, scores) is None
