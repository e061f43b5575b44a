"""SCALE-UP (Guo et al., ICLR 2023, arXiv 2302.03251): is a prediction the same at other contrasts?

The paper multiplies every pixel by n = 1 … 11, clips to the grey range, and counts on how many
copies the prediction stays (scaled prediction consistency, equation 2): a trigger's prediction
stays, a clean image's decays. With a few clean images, the count is compared with the mean and
standard deviation of clean images of the same predicted class (equations 3 and 4).

What differs here, and why:

- A film has several predictions or none. Each finding is asked alone: *positive* is a logit above
  the quantile of clean logits that stands for a specificity of 95 % (0.5 is nobody's operating
  point), consistent is a copy that is positive too, and the most suspicious positive finding is
  the film's suspicion. Equations 3 and 4 are read per finding, over the reference films on which
  the victim itself finds it. A film without any positive finding has nothing that could be
  consistent: it gets what a finding would that no copy keeps, the least that there is.
- Multiplying scales about black: a black trigger stays, lungs saturate, and a white trigger's
  surroundings become as white. The default scales about mid-grey too, which treats both alike, and
  about white, the mirror of the paper. Each keeps its own count, compared with its own clean films.
  `PUBLISHED` multiplies, and compares with nothing.
- A trigger that clears a finding leaves no prediction to be consistent, and is not seen; with
  `clears`, logits below the clean 5 % quantile are asked in the same way. It is not the default,
  since some finding is low on every film.
- The unscaled image, which agrees with itself, is not counted among the copies: that would shift
  every count by the same amount. (The paper writes the factors as "e.g. 3, 5, 7, 9, 11"; its
  authors' code runs 1 … 11.)

Pixels are scaled as fractions of the stored grey range, before the network's normalisation, each
copy from the image itself.

Cost: 1 + pivots × factors: 16 forwards an image; 11 as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lucency.detect.images.pairs import pair_logits
from lucency.detect.images.reference import require_patients
from lucency.records import BoolArray, Float64Array, NetworkInputs
from lucency.victims.victim import Victim, frozen, predict, to_grey

NAME = "SCALE-UP"


@dataclass(frozen=True)
class ScaleUpSettings:
    """How an image is scaled, and what its consistency is compared with.

    pivots: grey levels that scaling leaves alone, fraction of the grey range; 0 multiplies, as the
    paper does. factors: a copy each and pivot, not 1. specificity: the share of clean films below a
    finding's operating point. clears: also ask about logits below the clean (1 − specificity)
    quantile. normalise: compare with clean films of the same predicted finding (the paper's
    data-limited setting); else the share itself. fewest: a finding that fewer reference films show
    is compared with all findings together.
    """

    pivots: tuple[float, ...] = (0.0, 0.5, 1.0)
    factors: tuple[float, ...] = (3.0, 5.0, 7.0, 9.0, 11.0)
    specificity: float = 0.95
    clears: bool = False
    normalise: bool = True
    fewest: int = 10


DEFAULT = ScaleUpSettings()
PUBLISHED = ScaleUpSettings(
    pivots=(0.0,), factors=tuple(float(n) for n in range(2, 12)), normalise=False
)


@dataclass(frozen=True)
class ScaleUp:
    """SCALE-UP for one victim: images (n, size, size) -> suspicion (n,) float64, larger = more
    suspicious; 0 to 1 if not normalised.

    above, below (K,): a finding's logit above (below) it is called present (suspiciously absent);
    `below` is −infinity where nobody asks. centre, spread (C,): consistency on clean films, in
    C = 2 K columns a pivot: findings present, then suspiciously absent.
    """

    victim: Victim
    settings: ScaleUpSettings
    above: Float64Array
    below: Float64Array
    centre: Float64Array
    spread: Float64Array

    def __call__(self, images: NetworkInputs) -> Float64Array:
        predicted, consistency = self.measure(images)
        least = (0.0 - self.centre) / self.spread
        standardised = np.where(predicted, (consistency - self.centre) / self.spread, least.min())
        return np.asarray(standardised.max(axis=1))

    def measure(self, images: NetworkInputs) -> tuple[BoolArray, Float64Array]:
        """(n, C) each: whether it is predicted, and the share of scaled copies on which it is."""
        device = self.victim.device
        copies = [(p, f) for p in self.settings.pivots for f in self.settings.factors]
        pivots, factors = torch.tensor([(0.0, 1.0), *copies], device=device).T

        def compose(image: Tensor, copy: Tensor) -> Tensor:
            grey = to_grey(images[image.cpu().numpy()], device)
            return scaled(grey, factors[copy], pivots[copy])

        logits = pair_logits(self.victim, len(images), len(factors), compose)
        kept = np.concatenate([logits > self.above, logits < self.below], axis=2)
        arms = np.split(kept[:, 1:], len(self.settings.pivots), axis=1)
        consistency = np.concatenate([arm.mean(axis=1) for arm in arms], axis=1)
        return np.tile(kept[:, 0], len(arms)), consistency


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: ScaleUpSettings = DEFAULT
) -> ScaleUp:
    """Operating points, and how consistent the clean reference films (n, size, size) are.

    Calibrate on films that are not in the reference. Nothing is drawn: the seed is ignored.
    Raises DataError for fewer than 8 reference films.
    """
    require_patients(len(reference))
    with frozen(victim.network):
        logits = predict(victim, reference).astype(np.float64)
    above = np.quantile(logits, settings.specificity, axis=0)
    below = np.quantile(logits, 1 - settings.specificity, axis=0)
    if not settings.clears:
        below = np.full_like(below, -np.inf)
    columns = 2 * len(victim.findings) * len(settings.pivots)
    raw = ScaleUp(victim, settings, above, below, np.zeros(columns), np.ones(columns))
    if not settings.normalise:
        return raw
    centre, spread = _usual(*raw.measure(reference), settings)
    return replace(raw, centre=centre, spread=spread)


def scaled(grey: Tensor, factor: Tensor, pivot: Tensor) -> Tensor:
    """grey (B, 1, H, W) in [0, 1], factor and pivot (B,) -> clip(pivot + factor · (grey − pivot)),
    each copy from the image itself."""
    pivot = pivot.view(-1, 1, 1, 1)
    return torch.clamp(pivot + factor.view(-1, 1, 1, 1) * (grey - pivot), 0.0, 1.0)


def _usual(
    predicted: BoolArray, consistency: Float64Array, settings: ScaleUpSettings
) -> tuple[Float64Array, Float64Array]:
    """Mean and standard deviation (equation 3) of the consistency of each column over the films on
    which it is predicted; the spread is at least the weight of one copy, since a share that never
    varied on a few films is not a certainty."""
    count = predicted.shape[1]
    centre, spread = np.zeros(count), np.zeros(count)
    for alike in np.split(np.arange(count), 2 * len(settings.pivots)):
        together = consistency[:, alike][predicted[:, alike]]
        for column in alike:
            own = consistency[predicted[:, column], column]
            sample = own if len(own) >= settings.fewest else together
            if len(sample):
                centre[column], spread[column] = sample.mean(), sample.std()
    return centre, np.maximum(spread, 1 / len(settings.factors))
