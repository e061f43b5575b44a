"""How well a detector finds triggered images and their triggers, judged by the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.evaluate.bootstrap import N_RESAMPLES, draw_resamples
from lucency.evaluate.checks import as_claims, as_scores, same_length
from lucency.evaluate.estimates import estimate, rank
from lucency.evaluate.localisation import is_hit
from lucency.evaluate.rates import no_rate, rate
from lucency.records import (
    BoolArray,
    Box,
    DetectionCell,
    DetectionScore,
    Estimate,
    Float64Array,
    Rate,
)

Model = Literal["backdoored", "clean"]


def measure_detection(
    detector: str,
    model: Model,
    *,
    suspicion_clean: npt.ArrayLike,
    suspicion_triggered: npt.ArrayLike,
    patients_clean: Sequence[str],
    patients_triggered: Sequence[str],
    successful: npt.ArrayLike,
    regions: Sequence[Box | None] | None,
    triggers: Sequence[Box | None] | None,
    generator: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> tuple[DetectionScore, DetectionScore]:
    """Score a detector over all triggered images, then over the successfully attacked ones.

    suspicion_clean (N,), suspicion_triggered (M,): larger = more suspicious, no NaN.
    patients_clean, patients_triggered: N and M names; the same patient may stand in both.
    successful (M,) bool: the attack succeeded on this image.
    regions, triggers: M boxes in pixels of the network's input; regions ``None`` = a detector that
    cannot say where, whose hit rate is not defined; no region = the detector points nowhere on this
    image = a miss; no trigger = none of it survived to the network's input: nothing can be
    hit, the image is left out of the hit rate only, whose `trials` counts the others; triggers
    ``None`` = they change the whole image, and the hit rate is not defined.
    """
    clean = as_scores(suspicion_clean, "suspicion_clean")
    triggered = as_scores(suspicion_triggered, "suspicion_triggered")
    claims = as_claims(successful, "successful")
    same_length(suspicion_clean=len(clean), patients_clean=len(patients_clean))
    same_length(
        suspicion_triggered=len(triggered),
        patients_triggered=len(patients_triggered),
        successful=len(claims),
        regions=len(triggered if regions is None else regions),
        triggers=len(triggered if triggers is None else triggers),
    )

    def score(over: Literal["all", "successful"], chosen: BoolArray) -> DetectionScore:
        rows = [int(row) for row in np.flatnonzero(chosen)]
        suspects = triggered[rows]
        patients = [patients_triggered[row] for row in rows]
        found = None if regions is None else [regions[row] for row in rows]
        sought = None if triggers is None else [triggers[row] for row in rows]
        return DetectionScore(
            detector=detector,
            model=model,
            over=over,
            n_clean=len(clean),
            n_triggered=len(rows),
            auroc=_auroc(clean, patients_clean, suspects, patients, generator, n_resamples),
            tpr_at_fpr_1=_tpr(1, clean, suspects, patients, generator, n_resamples),
            tpr_at_fpr_5=_tpr(5, clean, suspects, patients, generator, n_resamples),
            hit_rate=_hit_rate(found, sought, patients, generator, n_resamples),
        )

    return score("all", np.ones_like(claims)), score("successful", claims)


def measure_cell(
    model: Model,
    images: Literal["clean", "triggered"],
    flagged: npt.ArrayLike,
    patient_ids: Sequence[str],
    generator: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> DetectionCell:
    """Return the share of flagged images, flagged (N,) bool, in one cell of the 2 x 2.

    High is good for triggered images on the backdoored model, low in the other three.
    """
    claims = as_claims(flagged, "flagged")
    return DetectionCell(
        model=model,
        images=images,
        flagged=rate(claims, patient_ids, generator, n_resamples=n_resamples),
    )


def threshold_at_fpr(suspicion_clean: Float64Array, percent: int) -> float:
    """Return the smallest threshold that at most `percent` % of clean images exceed, whole number.

    At most floor(percent x n / 100) of n >= 1 clean images lie strictly above it. With n < 100
    the 1 % threshold is therefore the largest clean suspicion: no clean image is let through.
    """
    n = len(suspicion_clean)
    if n == 0 or not 0 <= percent < 100:
        raise DataError(f"Expected clean images and a percentage in [0, 100), got {n}, {percent}.")
    return float(np.sort(suspicion_clean)[n - 1 - percent * n // 100])


def _auroc(
    clean: Float64Array,
    patients_clean: Sequence[str],
    suspects: Float64Array,
    patients: Sequence[str],
    generator: np.random.Generator,
    n_resamples: int,
) -> Estimate:
    n = len(clean) + len(suspects)
    if len(clean) == 0 or len(suspects) == 0:
        return Estimate(value=None, n=n, reason=_missing(clean))
    drawn = draw_resamples([*patients_clean, *patients], n_resamples, generator)
    labels = np.concatenate([np.zeros(len(clean)), np.ones(len(suspects))])
    scores = np.concatenate([clean, suspects])
    return estimate(rank(labels, scores, drawn.patients, drawn)["auroc"])


def _tpr(
    percent: int,
    clean: Float64Array,
    suspects: Float64Array,
    patients: Sequence[str],
    generator: np.random.Generator,
    n_resamples: int,
) -> Rate:
    """Return the share above the threshold; the interval takes the threshold as given."""
    if len(clean) == 0 or len(suspects) == 0:
        return no_rate(_missing(clean))
    flagged = suspects > threshold_at_fpr(clean, percent)
    return rate(flagged, patients, generator, n_resamples=n_resamples)


def _hit_rate(
    regions: Sequence[Box | None] | None,
    triggers: Sequence[Box | None] | None,
    patients: Sequence[str],
    generator: np.random.Generator,
    n_resamples: int,
) -> Rate:
    """Count hits among the images on which something of the trigger is left."""
    if regions is None:
        return no_rate("this test cannot say where")
    if triggers is None:
        return no_rate("the trigger changes the whole image: it has no place to find")
    if not triggers:
        return no_rate("no triggered image")
    found = [
        (is_hit(region, trigger), patient)
        for region, trigger, patient in zip(regions, triggers, patients, strict=True)
        if trigger is not None
    ]
    return rate(
        np.array([hit for hit, _ in found], dtype=np.bool_),
        [patient for _, patient in found],
        generator,
        n_resamples=n_resamples,
        reason=f"no trigger survives at the network's input in {len(triggers)} images",
    )


def _missing(clean: Float64Array) -> str:
    return "no clean image" if len(clean) == 0 else "no triggered image"
