"""Distance in penultimate features and in logits: an answer that no clean film gives.

For triggers over the whole film, which no repaired region undoes: the network's answer to one sets
a finding without what usually comes with it. Three columns: how far the features (what enters the
last layer) lie from the reference along its 8 leading directions; how much of them lies outside a
quarter of n leading directions, where clean films hardly vary; and how far the vector of logits
lies from the reference. The first and the last are Mahalanobis distances (Lee et al. 2018, arXiv
1807.03888, without classes, which several findings at once do not have).

A film with real, pronounced findings lies far out as well. So each column is divided by a power of
1 + the root mean square of the standardised logits, the power with which it grows on clean films:
what counts is an answer that is unusual *for one so pronounced*. With 100 reference phantoms this
raised the share of sinusoids, blends and warps found at 5 % false alarms from 0.2 to 0.7. Features
enter with the root of their size, since pooled activations are skewed. Larger = more suspicious.
Cost: the one forward that every test shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lucency.detect.images.whitening import (
    SMALLEST,
    Remainder,
    Whitening,
    fit_remainder,
    fit_whitening,
    require_rows,
)
from lucency.errors import ModelError
from lucency.records import Float64Array, FloatArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

NAME = "feature distance"
BATCH = 64
FOLDS = 5
# Fewer films do not show how deviations grow.
ENOUGH = 8


@dataclass(frozen=True)
class FeatureDistanceSettings:
    """directions: of the features, leading ones, that are kept."""

    directions: int = 8


DEFAULT = FeatureDistanceSettings()


@dataclass(frozen=True)
class Answers:
    """What clean answers are like. features, rest: None for a network without. size (K,): standard
    deviation of each logit; not the robust spread, which would call every film with a finding
    pronounced."""

    features: Whitening | None
    rest: Remainder | None
    logits: Whitening
    size: Float64Array

    def deviations(self, rooted: Float64Array | None, logits: Float64Array) -> Float64Array:
        """rooted features (N, D), logits (N, K) -> (N, C) ≥ 0."""
        found = [self.logits.deviation(logits)]
        if self.features is not None and self.rest is not None and rooted is not None:
            found = [self.features.deviation(rooted), self.rest.deviation(rooted), *found]
        return np.stack(found, axis=1)

    def pronounced(self, logits: Float64Array) -> Float64Array:
        """(N, 1) ≥ 1: 1 + the root mean square of the standardised logits."""
        scaled = (logits - self.logits.centre) / self.size
        return np.asarray(1 + np.sqrt((scaled**2).mean(axis=1, keepdims=True)))


@dataclass(frozen=True)
class Distance:
    """The fit. power (C,): with which power of the pronounced a column grows on clean films. zero,
    one (C,): a column's median and 95 % quantile there. All three on clean films that the column
    was not fitted on; C = 3 with features, else 1."""

    answers: Answers
    power: Float64Array
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
    require_rows(len(logits))
    rooted, wide = _rooted(features), np.asarray(logits, np.float64)
    apart, pronounced = _held_out(rooted, wide, settings)
    power = _power(apart, pronounced)
    zero, one = np.quantile(apart / pronounced**power, (0.5, 0.95), axis=0)
    answers = _fit_answers(rooted, wide, settings)
    return Distance(answers, power, zero, np.maximum(one, zero + 1e-9))


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
    """(N, C) ≥ 0: the features' deviation and their remainder, if there are any, then the logits'
    deviation, each for how pronounced the answer is. Raises ModelError if the features that were
    there at the fit are missing."""
    if of.answers.features is not None and features is None and len(logits):
        raise ModelError(
            "The distance was fitted with features of the network's last layer and expected some, "
            "got none; fit it again with the network or the engine that is used now."
        )
    wide = np.asarray(logits, np.float64)
    deviations = of.answers.deviations(_rooted(features), wide)
    return np.asarray(deviations / of.answers.pronounced(wide) ** of.power)


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


def _fit_answers(
    rooted: Float64Array | None, logits: Float64Array, settings: FeatureDistanceSettings
) -> Answers:
    size = logits.std(axis=0)
    return Answers(
        None if rooted is None else fit_whitening(rooted, directions=settings.directions),
        None if rooted is None else fit_remainder(rooted),
        fit_whitening(logits, one_unit=True),
        np.maximum(size, 0.1 * size.max() + 1e-9),
    )


def _held_out(
    rooted: Float64Array | None, logits: Float64Array, settings: FeatureDistanceSettings
) -> tuple[Float64Array, Float64Array]:
    """Deviations (n, C) and how pronounced (n, 1) each clean film is to a fit on the other folds,
    since a film is never far from a fit that it was part of. With too few films for folds, to a fit
    on all."""
    fold = np.arange(len(logits)) % FOLDS
    if len(logits) <= SMALLEST + 1:
        fold[:] = -1
    apart = np.empty((len(logits), 1 if rooted is None else 3))
    pronounced = np.empty((len(logits), 1))
    for held_out in np.unique(fold):
        here = fold == held_out
        there = ~here if held_out >= 0 else here
        fitted = _fit_answers(None if rooted is None else rooted[there], logits[there], settings)
        apart[here] = fitted.deviations(None if rooted is None else rooted[here], logits[here])
        pronounced[here] = fitted.pronounced(logits[here])
    return apart, pronounced


def _power(deviations: Float64Array, pronounced: Float64Array) -> Float64Array:
    """(C,) in [0, 1]: the slope of log deviation (n, C) over log pronounced (n, 1), by least
    squares; 1 where there is nothing to learn it from."""
    size = np.log(pronounced) - np.log(pronounced).mean()
    if len(deviations) < ENOUGH or not size.any():
        return np.ones(deviations.shape[1])
    slope = (size * np.log(deviations + 1e-9)).sum(axis=0) / (size**2).sum()
    return np.asarray(slope.clip(0, 1))


def _rooted(features: FloatArray | Float64Array | None) -> Float64Array | None:
    """The root of each feature's size, with its sign."""
    if features is None:
        return None
    wide = np.asarray(features, np.float64)
    return np.asarray(np.sign(wide) * np.sqrt(np.abs(wide)))
