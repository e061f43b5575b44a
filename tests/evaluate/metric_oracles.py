"""The metrics a second time: slower, and straight from their definitions."""

from __future__ import annotations

import math

import numpy as np


def auroc_by_pairs(labels, scores):
    """Count every (positive, negative) pair; a tie is half a win."""
    positive = [s for y, s in zip(labels, scores, strict=True) if y == 1]
    negative = [s for y, s in zip(labels, scores, strict=True) if y == 0]
    if not positive or not negative:
        return None
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return won / (len(positive) * len(negative))


def average_precision_by_thresholds(labels, scores):
    """Lower the threshold score by score; weigh each precision by the recall gained."""
    pairs = [(y, s) for y, s in zip(labels, scores, strict=True) if not math.isnan(y)]
    n_positive = sum(y == 1 for y, _ in pairs)
    if n_positive in (0, len(pairs)):
        return None
    total, recall = 0.0, 0.0
    for threshold in sorted({s for _, s in pairs}, reverse=True):
        called = [y for y, s in pairs if s >= threshold]
        total += (sum(called) / n_positive - recall) * sum(called) / len(called)
        recall = sum(called) / n_positive
    return total


def draw_clustered(generator, n_patients, prevalence, shift, largest=4):
    """Draw patients with 1 to `largest` alike films: labels and scores both lean by patient."""
    patients = np.repeat(np.arange(n_patients), generator.integers(1, largest + 1, size=n_patients))
    lean = generator.beta(prevalence * 2, (1 - prevalence) * 2, size=n_patients)
    labels = (generator.random(len(patients)) < lean[patients]).astype(float)
    level = generator.normal(size=n_patients) * 0.7
    scores = shift * labels + level[patients] + generator.normal(size=len(patients)) * 0.7
    return labels, scores, patients
