"""How well a model ranks every finding on one set of images, per finding and overall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from lucency.evaluate.bootstrap import N_RESAMPLES, Resamples, draw_resamples
from lucency.evaluate.checks import as_labels, as_probabilities, as_table, same_length
from lucency.evaluate.estimates import (
    Metric,
    Ranked,
    difference_estimate,
    estimate,
    mean_estimate,
    missing_class,
    rank,
)
from lucency.evaluate.ranking import auroc
from lucency.records import Estimate, FindingPerformance, Float64Array, Performance

NOTHING = "no finding has both a positive and a negative image"

Ranking = dict[Metric, Ranked]


def measure_performance(
    model: Literal["backdoored", "clean"],
    set_name: Literal["NN", "TT", "TN"],
    findings: Sequence[str],
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patient_ids: Sequence[str],
    generator: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> Performance:
    """Measure AUROC and average precision of one model on N images and K findings.

    labels (N, K) in {1, 0, NaN}; NaN is left out of its finding and counted.
    probabilities (N, K) in [0, 1]; patient_ids: N names.
    All 95 % intervals come from the same `n_resamples` draws of patients. A finding that lacks a
    class is ``None``. It is left out of the means and named in `excluded`, and so is one whose
    positives or negatives come from a single patient: nothing says how far off its value is.
    """
    truth, values = _checked(findings, labels, probabilities, patient_ids)
    drawn = draw_resamples(patient_ids, n_resamples, generator)
    rankings = _rankings(truth, values, drawn)
    excluded = _excluded(findings, truth, drawn)
    defined = _included(rankings, excluded)
    return Performance(
        model=model,
        set_name=set_name,
        n_images=len(truth),
        n_patients=len(drawn.counts),
        findings=tuple(_finding(name, truth[:, k], rankings[k]) for k, name in enumerate(findings)),
        macro_auroc=mean_estimate([r["auroc"] for r in defined], nothing=NOTHING),
        macro_auprc=mean_estimate([r["auprc"] for r in defined], nothing=NOTHING),
        micro_auroc=_micro(truth, values, drawn),
        micro_floor=micro_floor(truth),
        excluded=tuple(
            f"{name}: {reason}" for name, reason in zip(findings, excluded, strict=True) if reason
        ),
    )


def auroc_difference(
    findings: Sequence[str],
    labels: npt.ArrayLike,
    backdoored: npt.ArrayLike,
    clean: npt.ArrayLike,
    patient_ids: Sequence[str],
    generator: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """Return macro AUROC of the backdoored model minus that of the clean one, on the same images.

    backdoored, clean: probabilities (N, K); the rest as for `measure_performance`. In [-1, 1],
    below 0 = the backdoor costs accuracy. Paired: both models see the same resamples. `n` counts
    the findings.
    """
    truth, first = _checked(findings, labels, backdoored, patient_ids)
    _, second = _checked(findings, labels, clean, patient_ids)
    drawn = draw_resamples(patient_ids, n_resamples, generator)
    excluded = _excluded(findings, truth, drawn)
    return difference_estimate(
        [r["auroc"] for r in _included(_rankings(truth, first, drawn), excluded)],
        [r["auroc"] for r in _included(_rankings(truth, second, drawn), excluded)],
        nothing=NOTHING,
    )


def micro_floor(labels: npt.ArrayLike) -> float | None:
    """Return the micro AUROC of a predictor that answers every image with the prevalences.

    labels (N, K) in {1, 0, NaN}. In [0.5, 1]; ``None`` if the table lacks a class.

    >>> micro_floor([[1, 0], [1, 0], [0, 0], [1, 1]])
    0.75
    """
    truth = as_labels(labels)
    known = ~np.isnan(truth)
    positives = np.sum(np.where(known, truth, 0), axis=0)
    prevalence = positives / np.maximum(known.sum(axis=0), 1)
    return auroc(truth.ravel(), np.broadcast_to(prevalence, truth.shape).ravel())


def _checked(
    findings: Sequence[str],
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patient_ids: Sequence[str],
) -> tuple[Float64Array, Float64Array]:
    truth = as_table(as_labels(labels), findings, "labels")
    values = as_table(as_probabilities(probabilities), findings, "probabilities")
    same_length(labels=len(truth), probabilities=len(values), patient_ids=len(patient_ids))
    return truth, values


def _rankings(truth: Float64Array, values: Float64Array, drawn: Resamples) -> list[Ranking | str]:
    """Rank each finding, or say why it cannot be."""
    return [_ranking(truth[:, k], values[:, k], drawn) for k in range(truth.shape[1])]


def _ranking(labels: Float64Array, scores: Float64Array, drawn: Resamples) -> Ranking | str:
    reason = missing_class(labels)
    if reason is not None:
        return reason
    known = ~np.isnan(labels)
    return rank(labels[known], scores[known], drawn.patients[known], drawn)


def _excluded(findings: Sequence[str], truth: Float64Array, drawn: Resamples) -> list[str | None]:
    """Why each finding is left out of the means; None if it is not."""
    reasons: list[str | None] = []
    for k in range(len(findings)):
        labels = truth[:, k]
        reason = missing_class(labels)
        for label, word in ((1, "positives"), (0, "negatives")):
            if reason is None and len(np.unique(drawn.patients[labels == label])) < 2:
                reason = f"all {word} come from one patient"
        reasons.append(reason)
    return reasons


def _included(rankings: list[Ranking | str], excluded: list[str | None]) -> list[Ranking]:
    return [
        r
        for r, reason in zip(rankings, excluded, strict=True)
        if reason is None and isinstance(r, dict)
    ]


def _finding(name: str, labels: Float64Array, ranking: Ranking | str) -> FindingPerformance:
    if isinstance(ranking, str):
        nothing = Estimate(value=None, n=int(np.sum(~np.isnan(labels))), reason=ranking)
        area = precision = nothing
    else:
        area, precision = estimate(ranking["auroc"]), estimate(ranking["auprc"])
    return FindingPerformance(
        finding=name,
        n_positive=int(np.sum(labels == 1)),
        n_negative=int(np.sum(labels == 0)),
        n_unknown=int(np.sum(np.isnan(labels))),
        auroc=area,
        auprc=precision,
    )


def _micro(truth: Float64Array, values: Float64Array, drawn: Resamples) -> Estimate:
    """Pool the N x K pairs of image and finding; `n` counts those with a known label."""
    known = ~np.isnan(truth)
    labels = truth[known]
    if not (np.any(labels == 1) and np.any(labels == 0)):
        return Estimate(value=None, n=len(labels), reason="the pooled findings lack a class")
    patients = np.broadcast_to(drawn.patients[:, None], truth.shape)[known]
    return estimate(rank(labels, values[known], patients, drawn)["auroc"])
