from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import auroc_by_pairs

from lucency.errors import DataError
from lucency.evaluate import is_hit, measure_cell, measure_detection, threshold_at_fpr
from lucency.records import Box


def box(x, y, size=3):
    return Box(x=int(x), y=int(y), width=size, height=size)


def draw(seed, n=150, m=40):
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 12, size=(2, m, 2))
    return {
        "suspicion_clean": np.round(generator.normal(size=n), 1),
        "suspicion_triggered": np.round(generator.normal(size=m) + 1.5, 1),
        "patients_clean": [f"p{i // 2}" for i in range(n)],
        "patients_triggered": [f"p{i}" for i in range(m)],
        "successful": generator.random(m) < 0.6,
        "regions": [None if i % 9 == 0 else box(*places[0, i]) for i in range(m)],
        "triggers": [None if i % 7 == 0 else box(*places[1, i]) for i in range(m)],
    }


def measure(arrays):
    generator = np.random.default_rng(0)
    return measure_detection("patch", "backdoored", **arrays, generator=generator, n_resamples=100)


def test_every_number_by_hand():
    arrays = draw(1)
    for score, chosen in zip(
        measure(arrays), (np.ones(40, dtype=bool), arrays["successful"]), strict=True
    ):
        clean, suspects = arrays["suspicion_clean"], arrays["suspicion_triggered"][chosen]
        labels, scores = [0] * len(clean) + [1] * len(suspects), [*clean, *suspects]
        assert score.auroc.value == pytest.approx(auroc_by_pairs(labels, scores), abs=1e-12)
        assert score.auroc.low < score.auroc.value < score.auroc.high
        assert (score.n_clean, score.n_triggered) == (150, chosen.sum())
        for rate, allowed in ((score.tpr_at_fpr_1, 1), (score.tpr_at_fpr_5, 7)):
            threshold = min(t for t in clean if sum(c > t for c in clean) <= allowed)
            assert rate.successes == sum(s > threshold for s in suspects)
            assert rate.trials == len(suspects)
        hits = [
            is_hit(region, trigger)
            for region, trigger, taken in zip(
                arrays["regions"], arrays["triggers"], chosen, strict=True
            )
            if taken and trigger is not None
        ]
        assert (score.hit_rate.successes, score.hit_rate.trials) == (sum(hits), len(hits))
        assert "NaN" not in score.model_dump_json()
    assert [s.over for s in measure(arrays)] == ["all", "successful"]


def test_a_trigger_on_the_whole_image_has_no_place_to_hit():
    arrays = draw(1)
    local, whole = measure(arrays), measure(arrays | {"triggers": None})
    for one, other in zip(local, whole, strict=True):
        assert other.hit_rate.value is None
        assert other.hit_rate.trials == 0
        assert "whole image" in other.hit_rate.reason
        assert other.auroc.value == one.auroc.value
        assert other.tpr_at_fpr_1.successes == one.tpr_at_fpr_1.successes
    blind = measure(arrays | {"triggers": None, "regions": None})
    assert "cannot say where" in blind[0].hit_rate.reason


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=250), st.sampled_from([0, 1, 5, 50, 99]))
def test_threshold_by_brute_force(clean, percent):
    allowed = percent * len(clean) // 100
    expected = min(t for t in clean if sum(c > t for c in clean) <= allowed)
    assert threshold_at_fpr(np.array(clean, dtype=float), percent) == expected


@pytest.mark.parametrize(("n", "passed"), [(1, 0), (99, 0), (100, 1), (199, 1), (200, 2)])
def test_how_many_clean_images_pass_at_one_percent(n, passed):
    clean = np.arange(n, dtype=float)
    assert np.sum(clean > threshold_at_fpr(clean, 1)) == passed


def test_a_detector_that_separates():
    arrays = draw(2) | {"suspicion_clean": np.zeros(150), "suspicion_triggered": np.ones(40)}
    score, _ = measure(arrays)
    assert (score.auroc.value, score.tpr_at_fpr_1.value) == (1.0, 1.0)
    assert score.auroc.low > 0.8
    blind, _ = measure(arrays | {"suspicion_triggered": np.zeros(40)})
    assert (blind.auroc.value, blind.tpr_at_fpr_5.value) == (0.5, 0.0)
    assert blind.auroc.low < 0.5 < blind.auroc.high


def test_infinite_suspicion_can_be_ranked():
    arrays = draw(3)
    arrays["suspicion_triggered"][:] = np.inf
    assert measure(arrays)[0].auroc.value == 1.0


def test_nothing_succeeded_or_survived():
    arrays = draw(4) | {"successful": np.zeros(40, dtype=bool), "triggers": [None] * 40}
    over_all, over_successful = measure(arrays)
    assert over_all.hit_rate.reason == "no trigger survives at the network's input in 40 images"
    assert over_all.auroc.value is not None
    assert over_successful.n_triggered == 0
    assert over_successful.auroc.reason == "no triggered image"
    assert over_successful.tpr_at_fpr_1.reason == "no triggered image"
    assert over_successful.hit_rate.value is None
    assert over_successful.hit_rate.reason == "no triggered image"


def test_no_clean_images():
    arrays = draw(5) | {"suspicion_clean": np.zeros(0), "patients_clean": []}
    score, _ = measure(arrays)
    assert score.auroc.reason == "no clean image"
    assert score.tpr_at_fpr_1.reason == "no clean image"
    assert score.hit_rate.value is not None


def test_cell():
    flagged = np.arange(20) % 5 == 0
    cell = measure_cell(
        "clean", "triggered", flagged, [str(i) for i in range(20)], np.random.default_rng(0)
    )
    assert (cell.model, cell.images) == ("clean", "triggered")
    assert (cell.flagged.successes, cell.flagged.trials) == (4, 20)


@pytest.mark.parametrize(
    "change",
    [
        {"suspicion_clean": np.full(150, np.nan)},
        {"patients_clean": ["a"]},
        {"regions": []},
        {"triggers": []},
        {"successful": np.ones(39, dtype=bool)},
        {"successful": np.ones(40)},
    ],
)
def test_refusals(change):
    with pytest.raises(DataError, match="Expected"):
        measure(draw(6) | change)


def test_refuses_a_threshold_from_nothing():
    with pytest.raises(DataError, match="clean images"):
        threshold_at_fpr(np.zeros(0), 1)
    with pytest.raises(DataError, match="percentage"):
        threshold_at_fpr(np.zeros(3), 100)
