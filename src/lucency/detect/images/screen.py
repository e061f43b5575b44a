"""Screen images: a look at each, the whole test for the unusual ones, one calibrated verdict.

The composite is the largest suspicion of all tests, each in units of what one clean film in twenty
reaches, and is calibrated as one score, so that several tests do not mean several chances to cry
wolf. T0 and T1 find small, local triggers, by intervening on the film. They are blind to a pattern
over the whole film; for that there are companions, which only say that a film, or the network's
answer to it, is unlike the clean ones: distance in features, and spectrum. All of it counts the
more, the less the findings of the film explain each other: an intervention by the finding that it
moves, a companion by the one that is explained least.

T1's whole test is made only where a look was unusual: on about one clean film in twelve. The others
are scored by what the look saw. The same schedule runs on the calibration films, so the p-values
hold for it as for any other score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lucency.detect.images import cofinding, counterfactual_patch, feature_distance, frequency
from lucency.detect.images import median_disagreement as median
from lucency.detect.images.calibrate import Scale, Score, conformal_p, fit_scale, score
from lucency.detect.images.cofinding import LEAST, MOST, relevance
from lucency.detect.images.counterfactual_patch import PatchTest
from lucency.detect.images.evidence import Evidence
from lucency.detect.images.feature_distance import Distance, distance, fit_distance
from lucency.detect.images.reference import (
    SMALLEST,
    Groups,
    group_by_view,
    n_duplicates,
    one_film_a_patient,
    power_left,
    require_patients,
    thumbnails,
)
from lucency.detect.images.stages import (
    Look,
    Usual,
    disagreement_of,
    examine,
    fit_usual,
    look,
)
from lucency.detect.images.suspicion import Suspicion
from lucency.detect.images.units import (
    Unit,
    apart_distances,
    apart_spectra,
    fit_bound,
    fit_unit,
    folds_of,
    tempered,
)
from lucency.errors import DataError
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Examine, Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim

T0 = median.NAME
T1 = counterfactual_patch.NAME
FEATURES = feature_distance.NAME
SPECTRUM = frequency.NAME
COFINDING = cofinding.NAME
COMPOSITE = "composite"
DETECTORS = (T0, T1, COFINDING, FEATURES, SPECTRUM, COMPOSITE)
POINTING = (T1, COMPOSITE)
COMPANIONS = (FEATURES, SPECTRUM)
GLANCE = "glance"
REASONS = (T0, GLANCE, COFINDING)
"""Why a film may deserve the whole test: the median moves a finding, repairing a region does, or a
finding is not what the others lead to expect."""
WEIGHTS = {T1: 1.0, GLANCE: 0.7, T0: 0.35, FEATURES: 0.3, SPECTRUM: 0.3}
"""What a test's unit counts for in the composite: the more it knows about a trigger, the more. No
fill confirms the region of a glance, T0 cannot say where, and companions do not even intervene;
with equal weights their long tails on clean films would set the threshold for everyone."""


@dataclass(frozen=True)
class Schedule:
    """How images are screened.

    patch: T1's settings. examined: share of clean films that look odd enough for the whole of T1.
    material: an effect counts as far as it exceeds this many standard deviations of its finding's
    clean logits. fit_share: share of the reference films that set scales; the others set p-values.
    folds: of the fit films, so that no film's feature distance comes from a fit that it was part
    of.
    """

    patch: PatchTest = field(default_factory=PatchTest)
    examined: float = 0.08
    material: float = 0.5
    fit_share: float = 0.35
    folds: int = 5


DEFAULT = Schedule()
WHOLE = replace(DEFAULT, examined=1.0)
"""The whole of T1 on every film, at about fifty passes each."""
SCHEDULES: dict[Examine, Schedule] = {"unusual": DEFAULT, "all": WHOLE}


@dataclass(frozen=True)
class Screening:
    """N screened images.

    suspicion, p_value: a detector's name -> (N,); larger suspicion = smaller p = more suspicious.
    T1's suspicion is below 0 where a glance was enough. is_local (N,) bool: the verdict rests on a
    region (else on a companion). finding (N,): the finding whose logit the region moves most.
    is_set (N,) bool: the region raises it. boxes (N, 4): x, y, width, height, network pixels.
    logit, repaired (N,): of that finding, with the region and without it. logits (N, K): of the
    image. features (N, D): what enters the network's last layer, None where it has none.
    """

    suspicion: dict[str, Float64Array]
    p_value: dict[str, Float64Array]
    is_local: BoolArray
    finding: IntArray
    is_set: BoolArray
    boxes: IntArray
    logit: Float64Array
    repaired: Float64Array
    logits: Float64Array
    features: Float64Array | None


@dataclass(frozen=True)
class Screener:
    """A victim, and what clean films look like to the tests.

    usual: what clean films are like; glance, t1: scales of their effects. units: the unit of each
    test; bound: how many of them a reason to examine a film has to reach. calibration: a detector's
    name -> the suspicions of the calibration films, (n,); groups: which view each belongs to;
    rows: which of the reference films they are; clean: all that was measured on them; n_duplicates:
    how many are copies of another.
    """

    victim: Victim
    schedule: Schedule
    usual: Usual
    glance: Scale
    t1: Scale
    units: dict[str, Unit]
    bound: float
    distance: Distance
    spectrum: Suspicion
    calibration: dict[str, Float64Array]
    groups: Groups
    n_fit: int
    rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    clean: Screening | None = None
    n_duplicates: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def n_calibration(self) -> int:
        """How many films p-values are read against."""
        return len(self.calibration[COMPOSITE])

    @property
    def calibrated(self) -> Screening:
        """What was measured on the calibration films. Raises DataError if there are none."""
        if self.clean is None:
            raise DataError("A screener with calibration films was expected; fit it on more films.")
        return self.clean

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
    views: Sequence[str | None] | None = None,
    alpha: float = 0.01,
    schedule: Schedule = DEFAULT,
    progress: Progress = silent,
) -> Screener:
    """Learn what is usual from the clean reference films (N, size, size), one film a patient.

    A share of the films sets the scales, the others the p-values; those of a view are read against
    calibration films of that view, where there are enough. Raises DataError for a reference set
    with fewer than 8 patients.
    """
    chosen = one_film_a_patient(patient_ids, seed)
    require_patients(len(chosen))
    least = SMALLEST // 2
    n_fit = min(max(least, round(schedule.fit_share * len(chosen))), len(chosen) - least)
    fit, rest = chosen[:n_fit], chosen[n_fit:]
    fitted = _fit(victim, reference[fit], schedule, seed, progress)
    clean = _measure(fitted, reference[rest], progress)
    known = [None if views is None else views[row] for row in rest]
    n_copies = n_duplicates(thumbnails(reference[rest]))
    copied = f"{n_copies} calibration films are copies of others; p-values are too sure."
    few = power_left(len(rest), alpha)
    return replace(
        fitted,
        calibration=clean.suspicion,
        rows=rest,
        clean=clean,
        n_duplicates=n_copies,
        groups=group_by_view(known),
        warnings=(*([few] if few else []), *([copied] if n_copies else [])),
    )


def screen(
    screener: Screener,
    images: NetworkInputs,
    *,
    views: Sequence[str | None] | None = None,
    progress: Progress = silent,
) -> Screening:
    """Screen suspects (N, size, size). The result of one image does not depend on the others."""
    if len(images) == 0:
        raise DataError("At least one image to screen was expected, got none; give images.")
    measured = _measure(screener, images, progress)
    known: list[str | None] = [None] * len(images) if views is None else list(views)
    return replace(
        measured,
        p_value={
            name: _p_values(screener, name, measured.suspicion[name], known) for name in DETECTORS
        },
    )


def calibration_of(screener: Screener, detector: str, view: str | None) -> Float64Array:
    """The calibration suspicions that an image of this view is read against."""
    every = screener.calibration[detector]
    if view not in screener.groups.names:
        return every
    chosen: Float64Array = every[[member == view for member in screener.groups.members]]
    return chosen


def _p_values(
    screener: Screener, detector: str, suspicion: Float64Array, views: list[str | None]
) -> Float64Array:
    p_values = np.empty(len(suspicion))
    for view in set(views):
        rows = np.array([v == view for v in views])
        p_values[rows] = conformal_p(calibration_of(screener, detector, view), suspicion[rows])
    return p_values


def _fit(
    victim: Victim, films: NetworkInputs, schedule: Schedule, seed: int, progress: Progress
) -> Screener:
    """Every scale, from films on which the whole test is made."""
    usual = fit_usual(disagreement_of(victim, films, progress=progress))
    seen = look(victim, films, usual, schedule.patch, progress=progress)
    patches = examine(victim, films, seen, usual, schedule.patch, progress=progress)
    t1 = fit_scale(patches)
    residual, reasons = _apart(seen, schedule.folds)
    units = {name: fit_unit(reason, from_zero=True) for name, reason in reasons.items()}
    units |= {
        T1: fit_unit(
            score(patches, t1, relevance=relevance(residual, patches)).suspicion, from_zero=True
        ),
        FEATURES: fit_unit(apart_distances(seen, schedule.folds)),
        SPECTRUM: fit_unit(apart_spectra(victim, films, schedule.folds, seed)),
    }
    return Screener(
        victim,
        schedule,
        usual,
        fit_scale(seen.patches),
        t1,
        units,
        bound=fit_bound(_oddness(reasons, units), schedule.examined),
        distance=fit_distance(seen.features, seen.logits),
        spectrum=frequency.fit(victim, films, seed),
        calibration={},
        groups=Groups((), ()),
        n_fit=len(films),
    )


def _reasons(
    seen: Look, residual: Float64Array, t0: Scale, glance: Scale
) -> dict[str, Float64Array]:
    """Each of REASONS, (N,), larger = more."""
    moved = score(seen.disagreement, t0, relevance=relevance(residual, seen.disagreement))
    repaired = score(seen.patches, glance, relevance=relevance(residual, seen.patches))
    return {
        T0: moved.suspicion,
        GLANCE: repaired.suspicion,
        COFINDING: np.abs(residual).max(axis=1),
    }


def _oddness(reasons: dict[str, Float64Array], units: dict[str, Unit]) -> Float64Array:
    """(N,): the strongest reason, in units."""
    odd: Float64Array = np.max([units[name].of(reasons[name]) for name in REASONS], axis=0)
    return odd


def _apart(seen: Look, folds: int) -> tuple[Float64Array, dict[str, Float64Array]]:
    """Each film's residuals (N, K) and reasons by what the other folds are like: a film that took
    part in saying what is usual looks less odd than a stranger."""
    residual = np.empty(seen.logits.shape)
    reasons = {name: np.empty(len(seen)) for name in REASONS}
    for here, there in folds_of(len(seen), folds):
        some, others = seen.rows(here), seen.rows(there)
        usual, glance = fit_usual(others.disagreement), fit_scale(others.patches)
        residual[here] = usual.residuals(some.logits)
        for name, reason in _reasons(some, residual[here], usual.t0, glance).items():
            reasons[name][here] = reason
    return residual, reasons


def _measure(screener: Screener, images: NetworkInputs, progress: Progress) -> Screening:
    """Suspicions of each detector, and T1's region; no p-values yet."""
    victim, usual, units = screener.victim, screener.usual, screener.units
    patch, material = screener.schedule.patch, screener.schedule.material
    seen = look(victim, images, usual, patch, progress=progress)
    residual = usual.residuals(seen.logits)
    reasons = _reasons(seen, residual, usual.t0, screener.glance)
    odd = _oddness(reasons, units)
    t1 = odd / (1 + odd) - 1
    moved = score(seen.disagreement, usual.t0, material, relevance(residual, seen.disagreement))
    glanced = score(seen.patches, screener.glance, material, relevance(residual, seen.patches))
    found = _Regions.of(seen.patches, glanced)
    local = np.maximum(
        WEIGHTS[GLANCE] * units[GLANCE].of(glanced.suspicion),
        WEIGHTS[T0] * units[T0].of(moved.suspicion),
    )
    rows = np.flatnonzero(odd > screener.bound)
    if len(rows):
        patches = examine(victim, images[rows], seen.rows(rows), usual, patch, progress=progress)
        t1[rows] = score(patches, screener.t1).suspicion
        confirmed = score(patches, screener.t1, material, relevance(residual[rows], patches))
        local[rows] = WEIGHTS[T1] * units[T1].of(confirmed.suspicion)
        found.put(rows, patches, confirmed)
    companions = {
        FEATURES: distance(screener.distance, seen.features, seen.logits),
        SPECTRUM: screener.spectrum(images),
    }
    unlike = np.max([WEIGHTS[n] * tempered(units[n].of(companions[n])) for n in COMPANIONS], axis=0)
    whole = unlike * units[COFINDING].of(reasons[COFINDING]).clip(LEAST, MOST)
    return Screening(
        suspicion={
            T0: score(seen.disagreement, usual.t0).suspicion,
            T1: t1,
            COFINDING: reasons[COFINDING],
            **companions,
            COMPOSITE: np.maximum(local, whole),
        },
        p_value={},
        is_local=local > whole,
        finding=found.finding,
        is_set=found.is_set,
        boxes=found.boxes,
        logit=found.logit,
        repaired=found.repaired,
        logits=seen.logits.astype(np.float64),
        features=None if seen.features is None else seen.features.astype(np.float64),
    )


@dataclass(frozen=True)
class _Regions:
    """The most moving region of each film; that of the whole test replaces that of a glance."""

    finding: IntArray
    is_set: BoolArray
    boxes: IntArray
    logit: Float64Array
    repaired: Float64Array

    @classmethod
    def of(cls, patches: Evidence, best: Score) -> _Regions:
        n = len(patches)
        empty = cls(
            np.zeros(n, np.int64),
            np.zeros(n, np.bool_),
            np.zeros((n, 4), np.int64),
            np.zeros(n),
            np.zeros(n),
        )
        empty.put(np.arange(n), patches, best)
        return empty

    def put(self, rows: IntArray, patches: Evidence, best: Score) -> None:
        at = (np.arange(len(rows)), best.column)
        self.finding[rows] = patches.findings[best.column]
        self.is_set[rows] = (patches.logits - patches.repaired)[at] > 0
        if patches.boxes is not None:
            self.boxes[rows] = patches.boxes[at]
        self.logit[rows], self.repaired[rows] = patches.logits[at], patches.repaired[at]
