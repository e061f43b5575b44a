"""Distance in penultimate features (placeholder of the lead's; the owner may replace it whole)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

from lucency.records import Float64Array

NAME = "feature distance"


@dataclass(frozen=True)
class Distance:
    mean: Float64Array
    axes: Float64Array
    logit_mean: Float64Array
    logit_precision: Float64Array
    center: Float64Array
    precision: Float64Array


def fit_distance(features, logits) -> Distance:
    logits = np.asarray(logits, np.float64)
    X = np.asarray(features if features is not None else logits, np.float64)
    mean = X.mean(0)
    _, _, axes = np.linalg.svd(X - mean, full_matrices=False)
    axes = axes[: max(1, len(X) // 4)].T
    P = (X - mean) @ axes
    lw = LedoitWolf().fit(P)
    ll = LedoitWolf().fit(logits)
    return Distance(mean, axes, logits.mean(0), ll.precision_, lw.location_, lw.precision_)


def distance(of: Distance, features, logits) -> Float64Array:
    logits = np.asarray(logits, np.float64)
    X = np.asarray(features if features is not None else logits, np.float64)
    P = (X - of.mean) @ of.axes - of.center
    a = np.sqrt(np.einsum("ni,ij,nj->n", P, of.precision, P))
    L = logits - of.logit_mean
    b = np.sqrt(np.einsum("ni,ij,nj->n", L, of.logit_precision, L))
    return a + b
