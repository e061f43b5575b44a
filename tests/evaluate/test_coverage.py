"""Do 95 % intervals contain the truth in 95 % of simulated studies, with alike films?"""

from __future__ import annotations

import numpy as np
import pytest
from metric_oracles import draw_clustered

from lucency.evaluate.bootstrap import draw_resamples
from lucency.evaluate.estimates import difference_estimate, estimate, mean_estimate, rank
from lucency.evaluate.ranking import auprc, auroc
from lucency.evaluate.rates import rate

N_RESAMPLES = 200


def share_covering(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize(
    ("n_patients", "share", "alike"), [(40, 0.5, 0.3), (40, 0.9, 0.3), (150, 0.97, 0.2)]
)
def test_rates(n_patients, share, alike):
    generator = np.random.default_rng(0xC0)
    spread = (1 - alike) / alike
    intervals = []
    for _ in range(1000):
        patients = np.repeat(np.arange(n_patients), generator.integers(1, 5, size=n_patients))
        lean = generator.beta(share * spread, (1 - share) * spread, size=n_patients)
        successes = generator.random(len(patients)) < lean[patients]
        result = rate(successes, patients.tolist(), generator, n_resamples=50)
        intervals.append((result.low, result.high))
    assert 0.93 <= share_covering(share, intervals) <= 0.97


@pytest.mark.parametrize(
    ("n_patients", "prevalence", "shift", "widest"),
    [(80, 0.3, 1.0, 0.97), (100, 0.1, 1.0, 0.97), (100, 0.1, 2.5, 0.985)],
)
def test_auroc_and_auprc(n_patients, prevalence, shift, widest):
    generator = np.random.default_rng(0xC1)
    labels, scores, _ = draw_clustered(generator, 100_000, prevalence, shift)
    truth = {"auroc": auroc(labels, scores), "auprc": auprc(labels, scores)}
    intervals = {"auroc": [], "auprc": []}
    for _ in range(500):
        labels, scores, patients = draw_clustered(generator, n_patients, prevalence, shift)
        drawn = draw_resamples(patients.tolist(), N_RESAMPLES, generator)
        for metric, ranked in rank(labels, scores, drawn.patients, drawn).items():
            result = estimate(ranked)
            intervals[metric].append((result.low, result.high))
    for metric, expected in truth.items():
        assert 0.93 <= share_covering(expected, intervals[metric]) <= widest, metric


def test_means_and_differences():
    generator = np.random.default_rng(0xC2)
    designs = ((0.3, 1.0), (0.15, 1.5), (0.2, 0.5))
    weaker = 0.8
    truth = [[], []]
    for prevalence, shift in designs:
        labels, scores, _ = draw_clustered(generator, 100_000, prevalence, shift)
        noisy = scores + weaker * generator.normal(size=len(scores))
        for values, expected in zip((scores, noisy), truth, strict=True):
            expected.append(auroc(labels, values))
    means, differences = [], []
    for _ in range(500):
        tables = [draw_clustered(generator, 80, *design, largest=1) for design in designs]
        drawn = draw_resamples(tables[0][2].tolist(), N_RESAMPLES, generator)
        ours, theirs = [], []
        for labels, scores, _ in tables:
            noisy = scores + weaker * generator.normal(size=len(scores))
            ours.append(rank(labels, scores, drawn.patients, drawn)["auroc"])
            theirs.append(rank(labels, noisy, drawn.patients, drawn)["auroc"])
        mean = mean_estimate(ours, nothing="")
        difference = difference_estimate(theirs, ours, nothing="")
        means.append((mean.low, mean.high))
        differences.append((difference.low, difference.high))
    assert 0.93 <= share_covering(np.mean(truth[0]), means) <= 0.97
    assert 0.93 <= share_covering(np.mean(truth[1]) - np.mean(truth[0]), differences) <= 0.97
