"""Frequencies (after Zeng et al., ICCV 2021, arXiv 2104.03413): is a film's spectrum unlike others?

The paper found that triggers leave traces in the cosine transform, and trained a classifier to tell
clean images from images with triggers of its own making. That presumes that the attacker's trigger
resembles one of them. The default here knows clean films alone: bands of the spectrum and the
strongest grating of a film (`spectrum.py`), and the Mahalanobis distance from the reference. Bands
rise and fall together from film to film (contrast, dose, sharpness); a trigger breaks the pattern.
The paper's form is `form="published"`.

For triggers over the whole film: sinusoids, noise, blended patterns, and warps if the network sees
them at the resolution at which they were made. It says nothing about a few pixels, and nothing
about the network: a film that is odd in itself (another detector plate, heavy compression) is just
as suspicious. No forward pass; a few milliseconds of a core. Larger = more suspicious.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lucency.detect.images.frequency_trained import FrequencyTrained, fit_trained
from lucency.detect.images.spectrum import bands, gratings
from lucency.detect.images.whitening import Whitening, fit_whitening, require_rows
from lucency.records import Float64Array, NetworkInputs
from lucency.victims.victim import Victim

NAME = "frequency"

# Of each grating on clean films; a film's strongest is the largest in units of this.
GRATING_QUANTILE = 0.95
# Least unit of a grating, in units of the middle one.
LEAST = 0.3
# With 100 films, this finds 0.9 of blended patterns on phantoms and of warps on real films at 5 %
# false alarms; the usual estimate, 0.1 and 0.05, finds 0.7 of each.
LEAST_SHRINKAGE = 0.2


@dataclass(frozen=True)
class FrequencySettings:
    """form: "anomaly" = distance from clean films; "published" = a classifier trained on synthetic
    triggers, drawn from the seed."""

    form: Literal["anomaly", "published"] = "anomaly"


DEFAULT = FrequencySettings()
PUBLISHED = FrequencySettings(form="published")


@dataclass(frozen=True)
class Frequency:
    """The distance of a film's spectrum: images (N, size, size) -> suspicion (N,) float64, larger =
    more suspicious.

    grating_unit (F,): what one clean film in twenty reaches at each frequency.
    """

    grating_unit: Float64Array
    whitening: Whitening

    def __call__(self, images: NetworkInputs) -> Float64Array:
        return self.whitening.deviation(describe(images, self.grating_unit))


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: FrequencySettings = DEFAULT
) -> Frequency | FrequencyTrained:
    """Learn the clean reference (n, size, size). The victim is not asked; the seed draws synthetic
    triggers, if any. Raises DataError for fewer than 2 reference films."""
    require_rows(len(reference))
    if settings.form == "published":
        return fit_trained(reference, seed)
    usual = np.quantile(gratings(reference), GRATING_QUANTILE, axis=0)
    unit = np.maximum(usual, max(LEAST * float(np.median(usual)), 1e-9))
    described = describe(reference, unit)
    return Frequency(unit, fit_whitening(described, least_shrinkage=LEAST_SHRINKAGE))


def describe(images: NetworkInputs, grating_unit: Float64Array) -> Float64Array:
    """Films (N, size, size) -> (N, 84): `bands`, then the log of the strongest grating, in units of
    its frequency's."""
    strongest = (gratings(images) / grating_unit).max(axis=1)
    return np.concatenate([bands(images), np.log(strongest + 1e-9)[:, None]], axis=1)
