"""Are the suspects films of the same kind as the reference? If not, p-values are not exact.

Conformal p-values hold for suspects that are exchangeable with the calibration films. A second
hospital, another detector plate or another export breaks that. So both sets are described by grey
levels, by the model's logits and by the leading directions of its penultimate features, and
compared by the energy distance with a permutation test (Székely and Rizzo 2004). The most
suspicious tenth of either side is left out, so that a few triggered films do not look like another
hospital.

Where the sets differ, the suspects' own majority can stand in for the centre and the spread of the
scores, and the reference for the shape of their tail: an empirical null (Efron 2004). That takes a
majority that is clean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from lucency.data.preprocess import full_scale
from lucency.detect.images.calibrate import conformal_p
from lucency.records import Float64Array, FloatArray, NetworkInputs

GREY = (
    "mean grey",
    "spread of grey",
    "darkest twentieth",
    "middle grey",
    "brightest twentieth",
    "fine detail",
)
DIRECTIONS = 8
LEFT_OUT = 0.10
LARGEST = 500
PERMUTATIONS = 999
NOTICED = 0.01
"""p-value at which the sets are said to differ."""
# Fewer films on either side cannot be told apart by anything.
SMALLEST = 10
# Where the centre and the spread of the scores are read: below anything that a trigger does.
CENTRAL = (0.25, 0.5, 0.65)


@dataclass(frozen=True)
class Shift:
    """p_value: small = the sets differ. distance: energy distance of the standardised
    descriptions, 0 = alike, larger = further apart. differences: a description's name -> mean of
    the suspects less that of the reference, in standard deviations of the reference, largest
    first. inflation: share of the suspects' less suspicious part below p = 0.5, over 0.5: 1 = as
    promised, 2 = p-values about half as large as they should be."""

    p_value: float
    distance: float
    differences: dict[str, float]
    inflation: float


@dataclass(frozen=True)
class Basis:
    """How films are described, fitted on the reference: mean (D,) and the leading directions
    (D, d) of its features; None for a network without features."""

    mean: Float64Array | None
    directions: Float64Array | None


def fit_basis(features: Float64Array | None) -> Basis:
    """features (n, D) of reference films."""
    if features is None:
        return Basis(None, None)
    mean = features.mean(axis=0)
    _, _, axes = np.linalg.svd(features - mean, full_matrices=False)
    return Basis(mean, axes[:DIRECTIONS].T)


def describe(
    basis: Basis, images: NetworkInputs, logits: Float64Array, features: Float64Array | None
) -> FloatArray:
    """A row a film: grey levels, logits (K), leading directions of the features; float32."""
    parts = [_grey_levels(images), logits]
    if basis.mean is not None and basis.directions is not None and features is not None:
        parts.append((features - basis.mean) @ basis.directions)
    return np.concatenate(parts, axis=1).astype(np.float32)


def describe_reference(
    images: NetworkInputs, logits: Float64Array, features: Float64Array | None
) -> tuple[Basis, FloatArray]:
    """The basis that is fitted on calibration films, and a row for each of them."""
    basis = fit_basis(features)
    return basis, describe(basis, images, logits, features)


def names(findings: tuple[str, ...], width: int) -> tuple[str, ...]:
    """What the columns of a description are called."""
    logits = tuple(f"logit of {finding}" for finding in findings)
    features = width - len(GREY) - len(findings)
    return (*GREY, *logits, *(f"feature direction {i + 1}" for i in range(features)))


def shift(
    reference: FloatArray,
    suspects: FloatArray,
    columns: tuple[str, ...],
    *,
    reference_suspicion: Float64Array,
    suspicion: Float64Array,
    seed: int,
) -> Shift | str:
    """Compare descriptions (n, d) and (m, d), given every film's composite suspicion; a sentence
    instead where there are too few films."""
    if min(len(reference), len(suspects)) < SMALLEST:
        return (
            f"A shift between the sets cannot be tested with fewer than {SMALLEST} films on either "
            f"side; there are {len(reference)} reference films and {len(suspects)} suspects."
        )
    generator = np.random.default_rng([seed, 0x5F])
    here = _less_suspicious(reference, reference_suspicion, generator)
    there = _less_suspicious(suspects, suspicion, generator)
    centre, spread = here.mean(axis=0), np.maximum(here.std(axis=0), 1e-6)
    here, there = (here - centre) / spread, (there - centre) / spread
    distance, p_value = _energy_test(here, there, generator)
    means = there.mean(axis=0)
    order = np.argsort(-np.abs(means), kind="stable")
    p_values = conformal_p(reference_suspicion, suspicion)
    return Shift(
        p_value,
        distance,
        {columns[i]: float(means[i]) for i in order},
        float((p_values <= 0.5).mean() / 0.5),
    )


def own_majority(
    calibration: Float64Array, suspicion: Float64Array, batch: Float64Array
) -> Float64Array:
    """p-values (N,) of `suspicion` (N,) after the scores of the whole `batch` (M,) were moved and
    stretched so that their lower half lies on that of the calibration scores.

    Approximate: exact only if the clean suspects' scores differ from the reference's by a shift
    and a factor, and more than two thirds of the suspects are clean.
    """
    low, middle, high = np.quantile(calibration, CENTRAL)
    own_low, own_middle, own_high = np.quantile(batch, CENTRAL)
    factor = (high - low) / max(own_high - own_low, 1e-9)
    return conformal_p(calibration, middle + factor * (suspicion - own_middle))


def _grey_levels(images: NetworkInputs) -> Float64Array:
    """(N, 6), fractions of the stored range."""
    grey = images.reshape(len(images), -1).astype(np.float32) / full_scale(images.dtype)
    detail = np.abs(np.diff(images.astype(np.float32), axis=2)).mean(axis=(1, 2))
    low, middle, high = np.quantile(grey, (0.05, 0.5, 0.95), axis=1)
    levels = [grey.mean(axis=1), grey.std(axis=1), low, middle, high]
    return np.stack([*levels, detail / full_scale(images.dtype)], axis=1).astype(np.float64)


def _less_suspicious(
    described: FloatArray, suspicion: Float64Array, generator: np.random.Generator
) -> Float64Array:
    """All but the most suspicious tenth, and no more than a test needs."""
    kept = np.argsort(suspicion, kind="stable")[: max(1, round((1 - LEFT_OUT) * len(suspicion)))]
    if len(kept) > LARGEST:
        kept = generator.choice(kept, LARGEST, replace=False)
    return described[np.sort(kept)].astype(np.float64)


def _energy_test(
    a: Float64Array, b: Float64Array, generator: np.random.Generator
) -> tuple[float, float]:
    """The energy distance of two samples, and its permutation p-value."""
    both = np.concatenate([a, b])
    apart = cdist(both, both)
    label = np.concatenate([np.ones(len(a)), np.zeros(len(b))])
    shuffled = np.stack([label, *(generator.permutation(label) for _ in range(PERMUTATIONS))], 1)
    # Mean distances within and between the two parts, for all permutations at once.
    first, second = shuffled, 1 - shuffled
    within_a = (first * (apart @ first)).sum(axis=0) / len(a) ** 2
    within_b = (second * (apart @ second)).sum(axis=0) / len(b) ** 2
    between = (first * (apart @ second)).sum(axis=0) / (len(a) * len(b))
    energy = 2 * between - within_a - within_b
    return float(energy[0]), float((1 + (energy[1:] >= energy[0]).sum()) / len(energy))
