from __future__ import annotations

import math

import numpy as np
import pytest

from lucency.errors import DataError
from lucency.evaluate import measure_attack_success
from lucency.records import OperatingPoint

BACKDOORED = (("specificity-0.95", 0.5), ("youden", 0.3), ("0.6", 0.6), ("0.9", 0.9))
CLEAN = (("specificity-0.95", 0.4), ("youden", 0.7), ("0.6", 0.6), ("0.9", 0.9))


def points(thresholds, finding="Mass"):
    return [
        OperatingPoint(name=name, finding=finding, threshold=t, reason=None if t else "no image")
        for name, t in thresholds
    ]


def draw(seed, n=80):
    generator = np.random.default_rng(seed)
    labels = generator.choice([0.0, 1.0, math.nan], size=n, p=[0.5, 0.3, 0.2])
    scores = np.round(generator.random((3, n)), 1).astype(np.float32)
    return labels, scores, [f"p{i // 2}" for i in range(n)]


def measure(direction, labels, scores, ids, ours=BACKDOORED, theirs=CLEAN):
    return measure_attack_success(
        "Mass",
        direction,
        labels,
        *scores,
        ids,
        [*points([("youden", 0.01)], "Edema"), *points(ours)],
        points(theirs),
        np.random.default_rng(0),
        n_resamples=50,
    )


@pytest.mark.parametrize("direction", ["set", "clear"])
def test_success_by_hand(direction):
    labels, (triggered, by_clean, untriggered), ids = draw(1)
    results = measure(direction, labels, (triggered, by_clean, untriggered), ids)
    assert [r.operating_point for r in results] == [name for name, _ in BACKDOORED]
    for result, (_, ours), (_, theirs) in zip(results, BACKDOORED, CLEAN, strict=True):
        counts, trials = [0, 0, 0], 0
        for i, label in enumerate(labels):
            if label != (0 if direction == "set" else 1):
                continue
            trials += 1
            cases = (triggered[i], ours), (by_clean[i], theirs), (untriggered[i], ours)
            for j, (probability, threshold) in enumerate(cases):
                is_above = float(probability) > threshold
                counts[j] += is_above if direction == "set" else not is_above
        rates = (result.backdoored, result.clean_model, result.untriggered)
        assert [r.successes for r in rates] == counts
        assert [r.trials for r in rates] == [trials] * 3
        assert [r.value for r in rates] == pytest.approx([c / trials for c in counts])
        assert result.excess == pytest.approx((counts[0] - counts[1]) / trials)
        assert (result.threshold, result.clean_threshold) == (ours, theirs)
        assert all(0 <= r.low <= r.value <= r.high <= 1 for r in rates)


def test_a_perfect_attack():
    n = 20
    results = measure(
        "set", np.zeros(n), (np.ones(n), np.zeros(n), np.zeros(n)), [str(i) for i in range(n)]
    )
    for result in results:
        assert (result.backdoored.value, result.clean_model.value, result.excess) == (1, 0, 1)
        assert result.backdoored.low == pytest.approx(0.025 ** (1 / n))
        assert result.clean_model.high == pytest.approx(1 - 0.025 ** (1 / n))


@pytest.mark.parametrize(("direction", "label"), [("set", 1.0), ("clear", 0.0), ("set", math.nan)])
def test_nobody_to_move(direction, label):
    labels, scores, ids = draw(2)
    for result in measure(direction, np.full_like(labels, label), scores, ids):
        for rate in (result.backdoored, result.clean_model, result.untriggered):
            assert (rate.trials, rate.value) == (0, None)
            assert rate.reason.startswith("no image whose true Mass is")
        assert result.excess is None
        assert "NaN" not in result.model_dump_json()


def test_a_missing_threshold():
    labels, scores, ids = draw(3)
    (result,) = measure("set", labels, scores, ids, [("youden", None)], [("youden", 0.5)])
    assert result.backdoored.reason == "no threshold: no image"
    assert result.untriggered.value is None
    assert result.clean_model.value is not None
    assert result.excess is None


def test_refusals():
    labels, scores, ids = draw(4)
    with pytest.raises(DataError, match="same operating points"):
        measure("set", labels, scores, ids, theirs=CLEAN[:2])
    with pytest.raises(DataError, match="same operating points"):
        measure("set", labels, scores, ids, [], [])
    with pytest.raises(DataError, match="clean_triggered"):
        measure("set", labels, (scores[0], scores[1] + 5, scores[2]), ids)
    with pytest.raises(DataError, match="same length"):
        measure("set", labels[1:], scores, ids)
