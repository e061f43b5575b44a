"""Distance in penultimate features and in logits: an answer that no clean film gives.

For triggers over the whole film, which no repaired region undoes: the network's answer to one sets
a finding without what usually comes with it. Two columns: how far the features (what enters the
last layer) lie from the reference, along its 8 leading directions, and how far the vector of logits
lies from it, both as Mahalanobis distances (Lee et al. 2018, arXiv 1807.03888, without classes,
which several findings at once do not have).

A film with real, pronounced findings lies far out as well. So each distance is divided by 1 + the
root mean square of the standardised logits: what counts is an answer that is unusual *for one so
pronounced*. On phantoms this raised the share of sinusoids, blends and warps found at 5 % false
alarms from about 0.4 to 0.7. Features enter with the root of their size, since pooled activations
are skewed. Larger = more suspicious. Cost: the one forward that every test shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lucency.detect.images.whitening import SMALLEST, Whitening, fit_whitening
from lucency.errors import ModelError
from lucency.records import Float64Array, FloatArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

NAME = "feature distance"
BATCH = 64
FOLDS = 5


@dataclass(frozen=True)
class FeatureDistanceSettings:
    """directions: of the features, leading ones, that are kept."""

    directions: int = 8


DEFAULT = FeatureDistanceSettings()


@dataclass(frozen=True)
class Columns:
    """features: None for a network without. size (K,): standard deviation of each logit on clean
    films; not the robust spread, which would call every film with a finding pronounced."""

    features: Whitening | None
    logits: Whitening
    size: Float64Array

    def measure(self, rooted: Float64Array | None, logits: Float64Array) -> Float64Array:
        """rooted features (N, D), logits (N, K) -> (N, C) ≥ 0: each deviation, over 1 + how
        pronounced the answer is."""
        pronounced = np.sqrt((((logits - self.logits.centre) / self.size) ** 2).mean(axis=1))
        deviations = [self.logits.deviation(logits)]
        if self.features is not None and rooted is not None:
            deviations.insert(0, self.features.deviation(rooted))
        return np.asarray(np.stack(deviations, axis=1) / (1 + pronounced)[:, None])


@dataclass(frozen=True)
class Distance:
    """What clean films give. columns: the fit. zero, one (C,): a column's median and 95 % quantile
    on clean films that it was not fitted on; C = 2 with features, else 1."""

    columns: Columns
    zero: Float64Array
    one: Float64Array


@dataclass(frozen=True)
class FeatureDistance:
    """The distance for one victim: images (N, size, size) -> suspicion (N,) float64, larger = more
    suspicious."""

    victim: Victim
    distance: Distance

    def __call__(self, images: NetworkInputs) -> Float64Array:
        features, logits = embed(self.victim, images)
        return distance(self.distance, features, logits)


def fit(
    victim: Victim,
    reference: NetworkInputs,
    seed: int,
    settings: FeatureDistanceSettings = DEFAULT,
) -> FeatureDistance:
    """Learn the clean reference (n, size, size). Nothing is drawn: the seed is ignored. Raises
    DataError for fewer than 2 reference films."""
    features, logits = embed(victim, reference)
    return FeatureDistance(victim, fit_distance(features, logits, settings))


def fit_distance(
    features: FloatArray | Float64Array | None,
    logits: FloatArray | Float64Array,
    settings: FeatureDistanceSettings = DEFAULT,
) -> Distance:
    """features (n, D), None for a network without; logits (n, K); of clean films. Raises DataError
    for fewer than 2."""
    rooted, wide = _rooted(features), np.asarray(logits, np.float64)
    fitted = _fit_columns(rooted, wide, settings)
    held_out = _held_out(rooted, wide, settings)
    zero, one = np.quantile(held_out, (0.5, 0.95), axis=0)
    return Distance(fitted, zero, np.maximum(one, zero + 1e-9))


def distance(
    of: Distance,
    features: FloatArray | Float64Array | None,
    logits: FloatArray | Float64Array,
) -> Float64Array:
    """features (N, D), logits (N, K) -> (N,): the mean of the columns, each with 0 = the clean
    median, 1 = what one clean film in twenty reaches; larger = more suspicious."""
    measured = columns(of, features, logits)
    return np.asarray(((measured - of.zero) / (of.one - of.zero)).mean(axis=1))


def columns(
    of: Distance,
    features: FloatArray | Float64Array | None,
    logits: FloatArray | Float64Array,
) -> Float64Array:
    """(N, C) ≥ 0: the deviation of the features, if there are any, then of the logits, each over 1
    + how pronounced the answer is. Raises ModelError if the features that were there at the fit
    are missing."""
    if of.columns.features is not None and features is None and len(logits):
        raise ModelError(
            "The distance was fitted with features of the network's last layer and expected some, "
            "got none; fit it again with the network or the engine that is used now."
        )
    return of.columns.measure(_rooted(features), np.asarray(logits, np.float64))


def embed(victim: Victim, images: NetworkInputs) -> tuple[FloatArray | None, FloatArray]:
    """Features (N, D), None for a network without or for no images, and logits (N, K)."""
    features: list[FloatArray] = []
    logits: list[FloatArray] = [np.zeros((0, len(victim.findings)), np.float32)]
    with torch.inference_mode(), frozen(victim.network):
        for start in range(0, len(images), BATCH):
            grey = to_grey(images[start : start + BATCH], victim.device)
            answer, entering = victim.embed(grey)
            logits.append(answer.cpu().numpy())
            if entering is not None:
                features.append(entering.cpu().numpy())
    return np.concatenate(features) if features else None, np.concatenate(logits)


def _fit_columns(
    rooted: Float64Array | None, logits: Float64Array, settings: FeatureDistanceSettings
) -> Columns:
    features = None if rooted is None else fit_whitening(rooted, directions=settings.directions)
    size = logits.std(axis=0)
    return Columns(
        features, fit_whitening(logits, one_unit=True), np.maximum(size, 0.1 * size.max() + 1e-9)
    )


def _held_out(
    rooted: Float64Array | None, logits: Float64Array, settings: FeatureDistanceSettings
) -> Float64Array:
    """(n, C): the columns of each clean film, fitted on the other folds, since a film is never far
    from a fit that it was part of. With too few films for folds, on all."""
    everything = _fit_columns(rooted, logits, settings).measure(rooted, logits)
    if len(logits) <= SMALLEST + 1:
        return everything
    fold = np.arange(len(logits)) % FOLDS
    apart = np.empty_like(everything)
    for held_out in range(min(FOLDS, len(logits))):
        there, here = fold != held_out, fold == held_out
        fitted = _fit_columns(None if rooted is None else rooted[there], logits[there], settings)
        apart[here] = fitted.measure(None if rooted is None else rooted[here], logits[here])
    return apart


def _rooted(features: FloatArray | Float64Array | None) -> Float64Array | None:
    """The root of each feature's size, with its sign."""
    if features is None:
        return None
    wide = np.asarray(features, np.float64)
    return np.asarray(np.sign(wide) * np.sqrt(np.abs(wide)))
