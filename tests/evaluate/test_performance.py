from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from metric_oracles import auroc_by_pairs, average_precision_by_thresholds

from lucency.errors import DataError
from lucency.evaluate import auroc_difference, measure_performance, micro_floor
from lucency.evaluate.bootstrap import patient_weights

FINDINGS = ("Mass", "Nodule", "Edema")
NAN = math.nan


def draw(seed, n=120, n_findings=3):
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, n_findings)) < 0.3).astype(np.float32)
    logits = generator.normal(size=labels.shape) + labels
    labels[generator.random(labels.shape) < 0.1] = NAN
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return labels, probabilities, [f"p{i // 2}" for i in range(n)]


def measure(labels, probabilities, ids, *, findings=FINDINGS, seed=0, n_resamples=200):
    generator = np.random.default_rng(seed)
    return measure_performance(
        "clean", "NN", findings, labels, probabilities, ids, generator, n_resamples=n_resamples
    )


def test_every_number_by_hand():
    labels, probabilities, ids = draw(1)
    result = measure(labels, probabilities, ids)
    assert (result.n_images, result.n_patients, result.excluded) == (120, 60, ())
    for k, finding in enumerate(result.findings):
        column = labels[:, k]
        assert finding.finding == FINDINGS[k]
        assert finding.n_positive == np.sum(column == 1)
        assert finding.n_negative == np.sum(column == 0)
        assert finding.n_unknown == np.sum(np.isnan(column))
        assert finding.auroc.n == finding.n_positive + finding.n_negative
        expected = auroc_by_pairs(column, probabilities[:, k])
        assert finding.auroc.value == pytest.approx(expected, abs=1e-12)
        expected = average_precision_by_thresholds(column, probabilities[:, k])
        assert finding.auprc.value == pytest.approx(expected, abs=1e-12)
        for estimate in (finding.auroc, finding.auprc):
            assert 0 < estimate.low < estimate.value < estimate.high < 1
    mean = np.mean([f.auroc.value for f in result.findings])
    assert result.macro_auroc.value == pytest.approx(mean)
    assert result.macro_auprc.value == pytest.approx(
        np.mean([f.auprc.value for f in result.findings])
    )
    assert result.macro_auroc.n == 3
    pooled = auroc_by_pairs(labels.ravel(), probabilities.ravel())
    assert result.micro_auroc.value == pytest.approx(pooled, abs=1e-12)
    assert result.micro_auroc.n == np.sum(~np.isnan(labels))


def test_the_mean_is_resampled_by_patient_across_findings():
    """The same finding three times has the spread of one, not of three independent ones."""
    labels, probabilities, ids = draw(2)
    columns = [0, 0, 0]
    result = measure(labels[:, columns], probabilities[:, columns], ids, n_resamples=2000)
    one, mean = result.findings[0].auroc, result.macro_auroc
    assert mean.high - mean.low == pytest.approx(one.high - one.low, rel=0.05)


def test_an_undefined_finding_says_why_and_leaves_the_mean():
    labels, probabilities, ids = draw(3)
    labels[:, 1] = 0
    labels[:60, 1] = NAN
    labels[:, 2] = NAN
    result = measure(labels, probabilities, ids)
    defined, without_positive, unknown = result.findings
    assert without_positive.auroc.value is None
    assert without_positive.auroc.reason == "no positive image among 60"
    assert without_positive.auprc.reason == "no positive image among 60"
    assert unknown.auroc.reason == "no image with a known label among 120"
    assert unknown.n_unknown == 120
    assert result.macro_auroc.value == defined.auroc.value
    assert result.macro_auroc.n == 1
    assert (result.macro_auroc.low, result.macro_auroc.high) == pytest.approx(
        (defined.auroc.low, defined.auroc.high)
    )
    assert result.excluded == (
        "Nodule: no positive image among 60",
        "Edema: no image with a known label among 120",
    )


def test_all_positive_is_undefined_too():
    labels, probabilities, ids = draw(4)
    labels[:, 0] = 1
    result = measure(labels, probabilities, ids)
    assert result.findings[0].auprc.reason == "no negative image among 120"


def test_no_images_at_all():
    result = measure(np.zeros((0, 3)), np.zeros((0, 3)), [])
    assert result.macro_auroc.value is None
    assert result.macro_auroc.reason == "no finding has both a positive and a negative image"
    assert result.micro_auroc.value is None
    assert result.micro_floor is None
    assert len(result.excluded) == 3


def test_undefined_resamples_are_dropped_and_counted():
    generator = np.random.default_rng(5)
    labels, probabilities = np.zeros((40, 1)), generator.random((40, 1))
    labels[:2] = 1
    ids = [f"p{i:02}" for i in range(40)]
    result = measure(labels, probabilities, ids, findings=("Hernia",), seed=6).findings[0].auroc
    weights = patient_weights(ids, 200, np.random.default_rng(6))
    assert result.undefined_resamples == np.sum(weights[:, :2].sum(axis=1) == 0)
    assert 0 < result.undefined_resamples < 60
    assert result.low < result.value < result.high


def test_one_positive_patient_has_no_interval():
    generator = np.random.default_rng(7)
    labels, probabilities = np.zeros((40, 2)), generator.random((40, 2))
    labels[:2, 0] = 1
    labels[::3, 1] = 1
    ids = ["a", "a", *(f"p{i}" for i in range(38))]
    result = measure(labels, probabilities, ids, findings=("Hernia", "Mass"))
    hernia = result.findings[0].auroc
    assert hernia.value is not None
    assert (hernia.low, hernia.high) == (None, None)
    assert hernia.reason == "no interval: all images of one class come from one patient"
    assert result.macro_auroc.value is not None
    assert result.excluded == ("Hernia: all positives come from one patient",)
    assert result.macro_auroc.n == 1
    assert result.macro_auroc.low is not None


def test_too_few_defined_resamples_of_the_mean():
    """Each finding is defined on most resamples, all six together on few."""
    generator = np.random.default_rng(8)
    labels = np.zeros((60, 6))
    for k in range(6):
        labels[2 * k : 2 * k + 2, k] = 1
    result = measure(
        labels,
        generator.random(labels.shape),
        [f"p{i}" for i in range(60)],
        findings=tuple("abcdef"),
    )
    assert all(f.auroc.low is not None for f in result.findings)
    assert result.macro_auroc.low is None
    assert "of 200 resamples lack a class" in result.macro_auroc.reason
    assert result.macro_auroc.undefined_resamples > 100


def test_a_perfect_finding_has_an_honest_interval():
    labels = np.repeat([1.0, 0.0], 20)[:, None]
    result = measure(labels, 0.1 + 0.8 * labels, [str(i) for i in range(40)], findings=("Mass",))
    for estimate in (result.findings[0].auroc, result.macro_auroc, result.micro_auroc):
        assert (estimate.value, estimate.high) == (1.0, 1.0)
        assert estimate.low == pytest.approx(0.025 ** (1 / 20))


def test_micro_floor_by_hand():
    """Prevalences 3/4 and 1/4: of 4 x 4 pairs, 9 are won, 3 + 3 tie, 1 is lost."""
    labels = [[1, 0], [1, 0], [0, 0], [1, 1]]
    assert micro_floor(labels) == pytest.approx((9 + 3) / 16)
    known = [[1, NAN], [0, NAN], [NAN, 0], [NAN, 0], [NAN, 1]]
    constant = [[1 / 2, 1 / 3]] * 5
    expected = auroc_by_pairs(np.ravel(known), np.ravel(constant))
    assert micro_floor(known) == pytest.approx(expected)


def test_the_floor_is_what_a_blind_predictor_scores():
    labels, _, ids = draw(9)
    prevalences = np.broadcast_to(np.nanmean(labels, axis=0, dtype=np.float64), labels.shape)
    result = measure(labels, prevalences, ids)
    assert result.micro_auroc.value == pytest.approx(result.micro_floor)
    assert result.macro_auroc.value == 0.5


def test_difference_is_paired():
    labels, probabilities, ids = draw(10)
    generator = np.random.default_rng(11)
    worse = np.clip(probabilities + 0.02 * generator.normal(size=labels.shape), 0, 1)
    result = auroc_difference(FINDINGS, labels, worse, probabilities, ids, generator)
    ours, theirs = measure(labels, worse, ids), measure(labels, probabilities, ids)
    assert result.value == pytest.approx(ours.macro_auroc.value - theirs.macro_auroc.value)
    assert result.low < result.value < result.high
    assert result.high - result.low < 0.3 * (theirs.macro_auroc.high - theirs.macro_auroc.low)
    assert result.n == 3


def test_difference_without_an_interval():
    labels, probabilities, ids = draw(12)
    generator = np.random.default_rng(0)
    same = auroc_difference(FINDINGS, labels, probabilities, probabilities, ids, generator)
    assert (same.value, same.low) == (0.0, None)
    assert same.reason == "no interval: the difference is the same on every resample"
    labels[:] = 0
    nothing = auroc_difference(FINDINGS, labels, probabilities, probabilities, ids, generator)
    assert nothing.value is None
    assert nothing.reason == "no finding has both a positive and a negative image"


@pytest.mark.parametrize("change", ["logits", "nan", "label", "rows", "columns", "ids"])
def test_refusals(change):
    labels, probabilities, ids = draw(13)
    if change == "logits":
        probabilities[3, 1] = 1.5
    elif change == "nan":
        probabilities[3, 1] = NAN
    elif change == "label":
        labels[0, 0] = -1
    elif change == "rows":
        probabilities = probabilities[1:]
    elif change == "columns":
        labels, probabilities = labels[:, :2], probabilities[:, :2]
    else:
        ids = ids[1:]
    with pytest.raises(DataError, match="Expected"):
        measure(labels, probabilities, ids)


def test_the_order_of_images_does_not_matter():
    labels, probabilities, ids = draw(14)
    order = np.random.default_rng(15).permutation(len(ids))
    first = measure(labels, probabilities, ids).model_dump()
    again = measure(labels[order], probabilities[order], [ids[i] for i in order]).model_dump()
    assert again["macro_auroc"] == pytest.approx(first["macro_auroc"])


def test_json_has_no_nan():
    labels, probabilities, ids = draw(16)
    labels[:, 1] = NAN
    text = measure(labels, probabilities, ids).model_dump_json()
    assert "NaN" not in text
    assert json.loads(text)["findings"][1]["auroc"]["value"] is None


def test_a_thousand_resamples_are_fast():
    generator = np.random.default_rng(17)
    labels = (generator.random((1000, 14)) < 0.1).astype(np.float32)
    probabilities, ids = generator.random(labels.shape), [str(i // 2) for i in range(1000)]
    start = time.process_time()
    measure(labels, probabilities, ids, findings=tuple(map(str, range(14))), n_resamples=1000)
    assert time.process_time() - start < 2
