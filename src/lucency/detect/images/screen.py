"""Screen images: T0, then T1, then one composite verdict, all calibrated on clean films.

The composite is the larger of the two suspicions, each in units of what one clean film in twenty
reaches; it is calibrated as one score, so that two tests do not mean two chances to cry wolf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lucency.detect.images import counterfactual_patch, median_disagreement
from lucency.detect.images.calibrate import Scale, Score, conformal_p, fit_scale, score
from lucency.detect.images.counterfactual_patch import DEFAULT, PatchTest
from lucency.detect.images.evidence import Evidence
from lucency.errors import DataError
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim

T0 = median_disagreement.NAME
T1 = counterfactual_patch.NAME
COMPOSITE = "composite"
DETECTORS = (T0, T1, COMPOSITE)

# Below this, a threshold of 5 % cannot be reached and scales are guesses.
FEW = 40
SMALLEST = 8


@dataclass(frozen=True)
class Screening:
    """N screened images.

    suspicion, p_value: a detector's name -> (N,); larger suspicion = smaller p = more suspicious.
    finding (N,): the finding whose logit the region moves most. is_set (N,) bool: the region
    raises it. boxes (N, 4): x, y, width, height, network pixels. logit, repaired (N,): of that
    finding, with the region and without it.
    """

    suspicion: dict[str, Float64Array]
    p_value: dict[str, Float64Array]
    finding: IntArray
    is_set: BoolArray
    boxes: IntArray
    logit: Float64Array
    repaired: Float64Array


@dataclass(frozen=True)
class Screener:
    """A victim, and what clean films look like to the tests.

    units: a detector's suspicion that one clean film in twenty reaches. calibration: a detector's
    name -> the suspicions of the calibration films, (n,).
    """

    victim: Victim
    settings: PatchTest
    disagreement_scale: Scale
    patch_scale: Scale
    units: dict[str, float]
    calibration: dict[str, Float64Array]
    n_fit: int
    warnings: tuple[str, ...] = ()

    @property
    def n_calibration(self) -> int:
        """How many films p-values are read against."""
        return len(self.calibration[COMPOSITE])

    @property
    def min_p(self) -> float:
        """The smallest p-value that can come out."""
        return 1 / (self.n_calibration + 1)


def fit_screener(
    victim: Victim,
    reference: NetworkInputs,
    patient_ids: Sequence[str],
    *,
    seed: int,
    fit_share: float = 0.35,
    settings: PatchTest = DEFAULT,
    progress: Progress = silent,
) -> Screener:
    """Learn what is usual from the clean reference films (N, size, size), one film a patient.

    A share of the films sets the scales, the others the p-values. Raises DataError for a reference
    set with fewer than 8 patients.
    """
    chosen = one_film_a_patient(patient_ids, seed)
    require_patients(len(chosen))
    least = SMALLEST // 2
    n_fit = min(max(least, round(fit_share * len(chosen))), len(chosen) - least)
    fit, calibrate = reference[chosen[:n_fit]], reference[chosen[n_fit:]]
    disagreement = median_disagreement.measure(victim, fit, progress=progress)
    disagreement_scale = fit_scale(disagreement)
    patches = counterfactual_patch.measure(
        victim,
        fit,
        _by_finding(disagreement, disagreement_scale),
        settings,
        progress=progress,
    )
    patch_scale = fit_scale(patches)
    units = {
        T0: _unit(score(disagreement, disagreement_scale)),
        T1: _unit(score(patches, patch_scale)),
    }
    fitted = Screener(
        victim, settings, disagreement_scale, patch_scale, units, calibration={}, n_fit=n_fit
    )
    return replace(
        fitted,
        calibration=_measure(fitted, calibrate, progress).suspicion,
        warnings=_warnings(len(calibrate), len(np.unique(calibrate, axis=0))),
    )


def require_patients(n: int) -> None:
    """Raises DataError unless a clean reference set of `n` patients is large enough."""
    if n < SMALLEST:
        raise DataError(
            f"The clean reference set must have films of at least {SMALLEST} patients, got {n}; "
            "give more trusted images."
        )


def screen(screener: Screener, images: NetworkInputs, *, progress: Progress = silent) -> Screening:
    """Screen suspects (N, size, size). The result of one image does not depend on the others."""
    if len(images) == 0:
        raise DataError("At least one image to screen was expected, got none; give images.")
    measured = _measure(screener, images, progress)
    return Screening(
        suspicion=measured.suspicion,
        p_value={
            name: conformal_p(screener.calibration[name], measured.suspicion[name])
            for name in DETECTORS
        },
        finding=measured.finding,
        is_set=measured.is_set,
        boxes=measured.boxes,
        logit=measured.logit,
        repaired=measured.repaired,
    )


def one_film_a_patient(patient_ids: Sequence[str], seed: int) -> IntArray:
    """Rows in random order, the first of each patient only: several films of a patient are not
    exchangeable with a stranger's."""
    order = np.random.default_rng([seed, 0xCA1]).permutation(len(patient_ids))
    seen: set[str] = set()
    chosen = []
    for row in order:
        if patient_ids[row] not in seen:
            seen.add(patient_ids[row])
            chosen.append(row)
    return np.array(chosen, dtype=np.int64)


def _measure(screener: Screener, images: NetworkInputs, progress: Progress) -> Screening:
    """Suspicions of each detector, and T1's region; no p-values yet."""
    disagreement = median_disagreement.measure(screener.victim, images, progress=progress)
    patches = counterfactual_patch.measure(
        screener.victim,
        images,
        _by_finding(disagreement, screener.disagreement_scale),
        screener.settings,
        progress=progress,
    )
    t0 = score(disagreement, screener.disagreement_scale)
    t1 = score(patches, screener.patch_scale)
    rows = np.arange(len(images))
    composite = np.maximum(t0.suspicion / screener.units[T0], t1.suspicion / screener.units[T1])
    boxes = np.zeros((len(images), 1, 4), np.int64) if patches.boxes is None else patches.boxes
    return Screening(
        suspicion={T0: t0.suspicion, T1: t1.suspicion, COMPOSITE: composite},
        p_value={},
        finding=patches.findings[t1.column],
        is_set=t1.standardised[rows, t1.column] > 0,
        boxes=boxes[rows, t1.column],
        logit=patches.logits[rows, t1.column],
        repaired=patches.repaired[rows, t1.column],
    )


def _unit(on_clean: Score) -> float:
    """What one clean film in twenty reaches; above 0, though the films be copies of one."""
    return max(float(np.quantile(on_clean.suspicion, 0.95)), 1e-6)


def _by_finding(evidence: Evidence, scale: Scale) -> Float64Array:
    """T0's columns (N, 3 K) -> the largest standardised disagreement of each finding, (N, K)."""
    size = np.abs(scale.standardise(evidence))
    n_findings = int(evidence.findings.max()) + 1
    widths = size.reshape(len(size), -1, n_findings)
    return np.asarray(widths.max(axis=1))


def _warnings(n: int, n_distinct: int) -> tuple[str, ...]:
    found = []
    if n < FEW:
        found.append(
            f"Only {n} calibration films (one a patient): no p-value can be below "
            f"{1 / (n + 1):.3f}."
        )
    if n_distinct < n:
        found.append(
            f"{n - n_distinct} calibration films are copies of others; p-values are too sure."
        )
    return tuple(found)
