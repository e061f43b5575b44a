"""Screen images: a look at each, the whole test for the unusual ones, one calibrated verdict.

The composite is the largest suspicion of all tests, each in units of what one clean film in twenty
reaches, and is calibrated as one score, so that several tests do not mean several chances to cry
wolf. T0 and T1 find small, local triggers, by intervening on the film. They are blind to a pattern
over the whole film; for that there are companions, which only say that a film, or the network's
answer to it, is unlike the clean ones: distance in features, and spectrum. All of it counts half
on a film whose findings explain each other.

T1's whole test is made only where a look was unusual: on about one clean film in twelve. The others
are scored by what the look saw. The same schedule runs on the calibration films, so the p-values
hold for it as for any other score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import norm

from lucency.detect.images import cofinding, counterfactual_patch, feature_distance, frequency
from lucency.detect.images import median_disagreement as median
from lucency.detect.images.calibrate import Scale, Score, conformal_p, fit_scale, score
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
from lucency.errors import DataError
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Float64Array, IntArray, NetworkInputs
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
WEIGHTS = {T1: 1.0, T0: 0.35, FEATURES: 0.3, SPECTRUM: 0.3}
"""What a test's unit counts for in the composite: the more it knows about a trigger, the more. T0
cannot say where, and companions do not even intervene; with equal weights their long tails on clean
films would set the threshold for everyone."""
GLANCE = 0.7
"""The same for a glance of T1, whose one region a scale nothing has confirmed."""
EXPLAINED = 0.5
"""What is left of a film's score if every finding is what the others lead to expect. A trigger
moves its finding alone, and most of what else moves a logit does not. Not less than half, so that a
trigger that moves findings together is not excused."""


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
class Unit:
    """Turns a suspicion into units: 0 = the clean median, 1 = what one clean film in twenty
    reaches."""

    zero: float
    one: float

    def of(self, suspicion: Float64Array) -> Float64Array:
        return (suspicion - self.zero) / (self.one - self.zero)


@dataclass(frozen=True)
class Screener:
    """A victim, and what clean films look like to the tests.

    usual: what clean films are like; glance, t1: scales of their effects. oddness: the unit of each
    reason to examine a film; bound: how odd it has to look. units: a detector's name -> its unit.
    calibration: a detector's name -> the suspicions of the calibration films, (n,); groups: which
    view each belongs to; clean: all that was measured on them; n_duplicates: how many are copies of
    another.
    """

    victim: Victim
    schedule: Schedule
    usual: Usual
    glance: Scale
    t1: Scale
    oddness: tuple[float, ...]
    bound: float
    units: dict[str, Unit]
    distance: Distance
    spectrum: Suspicion
    calibration: dict[str, Float64Array]
    groups: Groups
    n_fit: int
    clean: Screening | None = None
    n_duplicates: int = 0
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
    glance = fit_scale(seen.patches)
    patches = examine(victim, films, seen, usual, schedule.patch, progress=progress)
    t1 = fit_scale(patches)
    apart = _apart_reasons(seen, schedule.folds)
    oddness = tuple(_unit(reason, from_zero=True).one for reason in apart)
    spectrum = frequency.fit(victim, films, seed)
    units = {
        T0: _unit(score(seen.disagreement, usual.t0).suspicion, from_zero=True),
        T1: _unit(score(patches, t1).suspicion, from_zero=True),
        COFINDING: _unit(apart[2]),
        FEATURES: _unit(_apart_distances(seen, schedule.folds)),
        SPECTRUM: _unit(_apart_spectra(victim, films, schedule.folds, seed)),
    }
    return Screener(
        victim,
        schedule,
        usual,
        glance,
        t1,
        oddness,
        bound=_bound(_oddness(apart, oddness), schedule.examined),
        units=units,
        distance=fit_distance(seen.features, seen.logits),
        spectrum=spectrum,
        calibration={},
        groups=Groups((), ()),
        n_fit=len(films),
    )


def _reasons(seen: Look, usual: Usual, glance: Scale) -> tuple[Float64Array, ...]:
    """Why a film may deserve the whole test, (N,) each, larger = more: the median moves a finding,
    repairing a region does, or a finding is not what the others lead to expect."""
    return (
        score(seen.disagreement, usual.t0).suspicion,
        score(seen.patches, glance).suspicion,
        usual.residuals(seen.logits).max(axis=1),
    )


def _oddness(reasons: tuple[Float64Array, ...], units: tuple[float, ...]) -> Float64Array:
    """(N,): the strongest reason, each in what one clean film in twenty reaches."""
    odd: Float64Array = np.max([r / unit for r, unit in zip(reasons, units, strict=True)], axis=0)
    return odd


def _apart_reasons(seen: Look, folds: int) -> tuple[Float64Array, ...]:
    """Each film's reasons by what the other folds are like: a film that took part in saying what is
    usual looks less odd than a stranger."""
    apart = np.empty((3, len(seen)))
    for here, there in _folds(len(seen), folds):
        others = _rows(seen, there)
        usual, glance = fit_usual(others.disagreement), fit_scale(others.patches)
        apart[:, here] = _reasons(_rows(seen, here), usual, glance)
    return tuple(apart)


def _bound(oddness: Float64Array, share: float) -> float:
    """What `share` of clean films exceeds, if logarithms of oddness are normal: of fifty films, the
    quantile itself would be that of two or three."""
    logs = np.log(np.maximum(oddness, 1e-6))
    return float(np.exp(logs.mean() + norm.isf(share) * logs.std()))


def _tempered(units: Float64Array) -> Float64Array:
    """Beyond one unit, its logarithm: a companion has a long tail on clean films, and must not
    bury the evidence of an intervention."""
    return np.where(units > 1, 1 + np.log(np.maximum(units, 1)), units)


def _measure(screener: Screener, images: NetworkInputs, progress: Progress) -> Screening:
    """Suspicions of each detector, and T1's region; no p-values yet."""
    victim, schedule, units = screener.victim, screener.schedule, screener.units
    seen = look(victim, images, screener.usual, schedule.patch, progress=progress)
    t0 = score(seen.disagreement, screener.usual.t0)
    found = _Regions.of_glance(seen, screener.glance)
    reasons = _reasons(seen, screener.usual, screener.glance)
    odd = _oddness(reasons, screener.oddness)
    t1 = odd / (1 + odd) - 1
    material = schedule.material
    glanced = score(seen.patches, screener.glance, material).suspicion / screener.oddness[1]
    moved = units[T0].of(score(seen.disagreement, screener.usual.t0, material).suspicion)
    local = np.maximum(GLANCE * glanced, WEIGHTS[T0] * moved)
    rows = np.flatnonzero(odd > screener.bound)
    if len(rows):
        patches = examine(
            victim,
            images[rows],
            _rows(seen, rows),
            screener.usual,
            schedule.patch,
            progress=progress,
        )
        t1[rows] = score(patches, screener.t1).suspicion
        confirmed = score(patches, screener.t1, material)
        local[rows] = np.maximum(local[rows], WEIGHTS[T1] * units[T1].of(confirmed.suspicion))
        found.put(rows, patches, confirmed)
    companions = {
        FEATURES: distance(screener.distance, seen.features, seen.logits),
        SPECTRUM: screener.spectrum(images),
    }
    whole = np.max([WEIGHTS[n] * _tempered(units[n].of(companions[n])) for n in COMPANIONS], axis=0)
    alone = reasons[2]
    unexplained = EXPLAINED + (1 - EXPLAINED) * units[COFINDING].of(alone).clip(0, 1)
    return Screening(
        suspicion={
            T0: t0.suspicion,
            T1: t1,
            COFINDING: alone,
            **companions,
            COMPOSITE: unexplained * np.maximum(local, whole),
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
    def of_glance(cls, seen: Look, scale: Scale) -> _Regions:
        n = len(seen)
        empty = cls(
            np.zeros(n, np.int64),
            np.zeros(n, np.bool_),
            np.zeros((n, 4), np.int64),
            np.zeros(n),
            np.zeros(n),
        )
        empty.put(np.arange(n), seen.patches, score(seen.patches, scale))
        return empty

    def put(self, rows: IntArray, patches: Evidence, best: Score) -> None:
        at = (np.arange(len(rows)), best.column)
        self.finding[rows] = patches.findings[best.column]
        self.is_set[rows] = (patches.logits - patches.repaired)[at] > 0
        if patches.boxes is not None:
            self.boxes[rows] = patches.boxes[at]
        self.logit[rows], self.repaired[rows] = patches.logits[at], patches.repaired[at]


def _rows(seen: Look, rows: IntArray) -> Look:
    return Look(
        seen.logits[rows],
        None if seen.features is None else seen.features[rows],
        seen.disagreement.rows(rows),
        seen.patches.rows(rows),
    )


def _unit(on_clean: Float64Array, *, from_zero: bool = False) -> Unit:
    """from_zero: the suspicion is a ratio to begin with. One stays above zero, though the films be
    copies of one."""
    zero = 0.0 if from_zero else float(np.median(on_clean))
    return Unit(zero, max(float(np.quantile(on_clean, 0.95)), zero + 1e-6))


def _folds(n: int, folds: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows of each fold that has any, and those of the others."""
    fold = np.arange(n) % folds
    for held_out in np.unique(fold):
        yield np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)


def _apart_distances(seen: Look, folds: int) -> Float64Array:
    """Each film's feature distance from a fit on the other folds."""
    apart = np.empty(len(seen))
    for here, there in _folds(len(seen), folds):
        some, others = _rows(seen, here), _rows(seen, there)
        fitted = fit_distance(others.features, others.logits)
        apart[here] = distance(fitted, some.features, some.logits)
    return apart


def _apart_spectra(victim: Victim, films: NetworkInputs, folds: int, seed: int) -> Float64Array:
    """Each film's spectrum suspicion from a fit on the other folds."""
    apart = np.empty(len(films))
    for here, there in _folds(len(films), folds):
        apart[here] = frequency.fit(victim, films[there], seed)(films[here])
    return apart
