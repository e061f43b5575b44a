"""STRIP (Gao et al. 2019, arXiv 1902.06531): what survives when other films are laid over a film?

The paper superimposes N = 100 held-out clean images on the suspect. A clean image's prediction then
depends on what was laid over it; a trigger's does not, so the mean entropy H of the N predictions
(equations 2–4) is low for a triggered image.

What differs here, and why:

- Entropy over classes has no meaning for independent sigmoids. Its nearest relative, the sum over
  findings of the binary entropies (`form="entropy"`, suspicion = −H in bits), is low on any film,
  since a rare finding is confidently absent under every blend, and it cannot tell a finding that
  stays present from one that stays absent. So the default asks each finding in turn whether its
  logit stays *high* over donors that lack it (a trigger that sets it), and whether it stays *low*
  over donors that have it (one that clears it). Donors lack or have a finding by the victim's own
  clean logits, no labels.
- Each of these 2 K means is compared with what clean films reach (median = 0, the 95 % quantile
  = 1), and the largest is the suspicion. The paper's threshold on H is left to calibration.
- The paper adds both images (its authors' notebook: weights 1 and 1, clipped at white), which turns
  an X-ray white. The default adds them about mid-grey, clip(suspect + donor − ½): black and white
  triggers keep their contrast wherever the donor is not at the other end of the range. Their mean
  would halve every contrast, a trigger's too.
- Donors are drawn once from the seed, not anew for each suspect, so that a score depends neither on
  the order of the suspects nor on their company.

Known weaknesses: a film's own strong finding persists too, since chests are alike; faint triggers
drown; source-specific and input-aware triggers do not survive a donor.

Cost: N = 100 forwards an image, all findings at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from lucency.detect.images.pairs import pair_logits
from lucency.detect.images.reference import require_patients
from lucency.records import BoolArray, Float64Array, NetworkInputs
from lucency.victims.victim import Victim, frozen, predict, to_grey

NAME = "STRIP"


@dataclass(frozen=True)
class StripSettings:
    """How films are laid over each other, and what is read from them.

    form: "finding" = persistence of each finding against clean films; "entropy" = minus the mean
    over blends of the summed binary entropy, as near to the paper as several labels permit.
    donors: N of the paper, at most half of the reference. donor_level: the grey level of a donor
    that leaves the suspect as it is, fraction of the grey range: a blend is
    clip(suspect + donor − donor_level), 0 as published. lacking, having: a donor lacks (has) a
    finding if its logit is at most (at least) this quantile of the donors' logits.
    """

    form: Literal["finding", "entropy"] = "finding"
    donors: int = 100
    donor_level: float = 0.5
    lacking: float = 0.5
    having: float = 0.9


DEFAULT = StripSettings()
PUBLISHED = StripSettings(form="entropy", donor_level=0.0)


@dataclass(frozen=True)
class Strip:
    """STRIP for one victim: images (n, size, size) -> suspicion (n,) float64, larger = more
    suspicious.

    donors (N, size, size), stored dtype. lacks, has (N, K): which donors are asked about which
    finding. centre, unit (C,): the statistics' median on clean films, and how far above it one
    clean film in twenty lies; C = 2 K (set, then clear), or 1 for the entropy.
    """

    victim: Victim
    settings: StripSettings
    donors: NetworkInputs
    lacks: BoolArray
    has: BoolArray
    centre: Float64Array
    unit: Float64Array

    def __call__(self, images: NetworkInputs) -> Float64Array:
        standardised = (self.statistics(images) - self.centre) / self.unit
        return np.asarray(standardised.max(axis=1))

    def statistics(self, images: NetworkInputs) -> Float64Array:
        """(n, C), each larger = more suspicious, before any comparison with clean films."""
        logits = self._blended_logits(images)
        if self.settings.form == "entropy":
            return -mean_entropy(logits)[:, None]
        stays_high = (logits * self.lacks).sum(axis=1) / self.lacks.sum(axis=0)
        stays_low = -(logits * self.has).sum(axis=1) / self.has.sum(axis=0)
        return np.concatenate([stays_high, stays_low], axis=1)

    def _blended_logits(self, images: NetworkInputs) -> Float64Array:
        """(n, N, K): each image under each donor."""
        device, level = self.victim.device, self.settings.donor_level
        donors = to_grey(self.donors, device)

        def blend(image: Tensor, donor: Tensor) -> Tensor:
            suspect = to_grey(images[image.cpu().numpy()], device)
            return torch.clamp(suspect + donors[donor] - level, 0.0, 1.0)

        return pair_logits(self.victim, len(images), len(donors), blend)


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: StripSettings = DEFAULT
) -> Strip:
    """Draw the donors from the clean reference (n, size, size), and learn from the films left over
    what is usual. Calibrate on films that are not in the reference.

    Raises DataError for fewer than 8 reference films.
    """
    require_patients(len(reference))
    order = np.random.default_rng([seed, 0x57]).permutation(len(reference))
    n_donors = min(settings.donors, len(reference) // 2)
    donors, others = reference[order[:n_donors]], reference[order[n_donors:]]
    with frozen(victim.network):
        logits = predict(victim, donors).astype(np.float64)
    lacks = logits <= np.quantile(logits, settings.lacking, axis=0)
    has = logits >= np.quantile(logits, settings.having, axis=0)
    raw = Strip(victim, settings, donors, lacks, has, np.zeros(1), np.ones(1))
    if settings.form == "entropy":
        return raw
    usual = raw.statistics(others)
    centre = np.median(usual, axis=0)
    unit = np.maximum(np.quantile(usual, 0.95, axis=0) - centre, 1e-6)
    return Strip(victim, settings, donors, lacks, has, centre, unit)


def mean_entropy(logits: Float64Array) -> Float64Array:
    """H of equation 4 in bits, (n,): over blends (n, N, K) the mean of the sum over findings of the
    binary entropy. Over findings, never over blends."""
    nats = np.logaddexp(0.0, logits) - logits * expit(logits)
    summed = nats.sum(axis=2) / np.log(2.0)
    return np.asarray(summed.mean(axis=1))
