from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.errors import DataError
from lucency.evaluate import operating_points

scores = st.lists(st.integers(0, 12).map(lambda i: i / 12), max_size=45)


def points(positive, negative, unknown=0):
    labels = [1.0] * len(positive) + [0.0] * len(negative) + [math.nan] * unknown
    values = [*positive, *negative, *([0.5] * unknown)]
    table = np.array(labels)[:, None], np.array(values)[:, None]
    return {p.name: p for p in operating_points(("Mass",), *table)}


def specificity(negative, threshold):
    return sum(s <= threshold for s in negative) / len(negative)


def sensitivity(positive, threshold):
    return sum(s > threshold for s in positive) / len(positive)


@settings(max_examples=400, deadline=None)
@given(scores, scores)
def test_specificity_is_the_smallest_threshold_that_keeps_it(positive, negative):
    point = points(positive, negative)["specificity-0.95"]
    if not negative:
        assert point.threshold is None
        return
    enough = [t for t in sorted({*negative}) if specificity(negative, t) >= 0.95]
    assert point.threshold == enough[0]
    assert specificity(negative, math.nextafter(point.threshold, -1)) < 0.95
    assert point.specificity == pytest.approx(specificity(negative, point.threshold))
    if positive:
        assert point.sensitivity == pytest.approx(sensitivity(positive, point.threshold))
    else:
        assert point.sensitivity is None


@settings(max_examples=400, deadline=None)
@given(scores, scores)
def test_youden_is_the_best_of_all_thresholds(positive, negative):
    point = points(positive, negative)["youden"]
    if not positive or not negative:
        assert point.threshold is None
        return
    all_scores = sorted({*positive, *negative})
    thresholds = [-1.0, *all_scores]
    best = max(sensitivity(positive, t) + specificity(negative, t) for t in thresholds)
    assert point.sensitivity + point.specificity == pytest.approx(best)
    assert point.sensitivity == pytest.approx(sensitivity(positive, point.threshold))
    assert point.specificity == pytest.approx(specificity(negative, point.threshold))


def test_youden_lies_in_the_middle_of_the_gap():
    assert points([0.75, 0.9], [0.1, 0.25])["youden"].threshold == 0.5
    assert points([0.25], [0.75])["youden"].threshold == 0.75
    below, above = 0.5, math.nextafter(0.5, 1)
    assert below <= points([above], [below])["youden"].threshold < above


def test_between_equally_good_gaps_the_higher_is_taken():
    point = points([0.2, 0.8], [0.1, 0.5])["youden"]
    assert point.threshold == pytest.approx(0.65)
    assert point.specificity == 1


@pytest.mark.parametrize(("n", "above"), [(1, 0), (19, 0), (20, 1), (39, 1), (40, 2), (100, 5)])
def test_how_many_negatives_lie_above(n, above):
    negative = np.arange(n) / n
    threshold = points([], negative)["specificity-0.95"].threshold
    assert np.sum(negative > threshold) == above


def test_fixed_thresholds_report_what_they_do():
    found = points([0.7, 0.95], [0.1, 0.65])
    assert (found["0.6"].sensitivity, found["0.6"].specificity) == (1.0, 0.5)
    assert (found["0.9"].sensitivity, found["0.9"].specificity) == (0.5, 1.0)
    assert (found["0.6"].threshold, found["0.9"].threshold) == (0.6, 0.9)


def test_a_missing_class_says_so():
    without_positive, without_negative = points([], [0.1, 0.2]), points([0.1], [], unknown=2)
    assert without_positive["youden"].reason == "no positive image among 2"
    assert without_positive["specificity-0.95"].threshold == 0.2
    assert without_negative["youden"].reason == "no negative image among 1"
    assert "no negative image" in without_negative["specificity-0.95"].reason
    assert without_negative["0.6"].specificity is None


def test_findings_stay_in_order_and_unknown_labels_stay_out():
    labels = np.array([[1, math.nan], [0, 1], [0, 0]])
    probabilities = np.array([[0.9, 0.99], [0.2, 0.8], [0.1, 0.3]], dtype=np.float32)
    found = operating_points(("Mass", "Edema"), labels, probabilities)
    assert [p.finding for p in found] == ["Mass"] * 4 + ["Edema"] * 4
    assert [p.name for p in found[:4]] == ["specificity-0.95", "youden", "0.6", "0.9"]
    assert found[4].threshold == float(np.float32(0.3))
    assert all("NaN" not in p.model_dump_json() for p in found)


def test_refusals():
    with pytest.raises(DataError, match="one column a finding"):
        operating_points(("Mass",), np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        operating_points(("Mass",), np.zeros((1, 1)), np.full((1, 1), 3.0))
    with pytest.raises(DataError, match="same length"):
        operating_points(("Mass",), np.zeros((3, 1)), np.zeros((2, 1)))
