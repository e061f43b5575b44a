"""SentiNet (Chou et al. 2020, arXiv 1812.00292): does what a network looked at work elsewhere?

The paper cuts out the region that an attribution map marks, pastes it onto N = 100 clean images,
and asks two things: how many of them are *fooled* into the suspect's class, and how *confident* the
network stays when the same region is filled with an inert pattern instead. A benign region that
fools many is large, and then the inert pattern destroys confidence; a trigger is small, fools, and
its place is harmless. Clean images draw the boundary: the highest fooled counts in intervals of
confidence, a quadratic curve through them, and the mean distance by which clean ones overstep it
(algorithms 2–4). The true trigger is never used: the map of the suspect itself is all there is.

What differs here, and why:

- A film has no one class. Tested are the 2 findings whose logits are the most unusual, in clean
  standard deviations, on N = 50 donors each, which costs what the paper's 100 do for one. Donors
  are the half of the pool with the lower logit of that finding, so that none that has it already
  counts as fooled. A finding unusually *low* is tested for a trigger that clears it: the map of
  −logit, donors from the other half, falls.
- "Fooled" is the mean rise of the finding's logit on the donors, in clean standard deviations: a
  count of flips depends on where a rare finding's operating point lies. "Confidence" is
  exp(−d), d the mean over donors and findings of how far the inert pattern moves a logit, in clean
  standard deviations: a network is always confident that most findings are absent.
- The map is gradient × (x − median), at full resolution and widened by `margin_px`: a last layer's
  Grad-CAM has cells of 32 × 32 px. A region keeps what reaches 15 % of the maximum of a smooth
  Grad-CAM in the paper, and 50 % of a map of single pixels here.
- The inert pattern is the suspect's own region without its small structure (a 7 px median), which
  has the seams of the transplant and no trigger; noise is louder than any film.
- Both axes then have different units, so that the distance to the curve is the vertical one, and
  the curve is not followed beyond the clean confidences.
- `PUBLISHED` keeps Grad-CAM, noise, fooled counts at the clean 95 % quantile, confidence in the
  yes-or-no of each finding, and the distance to the nearest point of the curve (exact, for which
  the paper runs COBYLA). Class proposals by selective search and the subtraction of their masks
  (algorithm 1) need rival classes, which independent findings are not; they are left out.
- Donors and noise are drawn once from the seed.

Cost an image: 1 forward, and for each tested finding 1 forward, 1 backward and 2 N forwards: 203
forwards and 2 backwards, or 202 and 1 as published. The fit costs as much for each of up to 400
clean films. Needs gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from lucency.detect.images.pairs import pair_logits
from lucency.detect.images.reference import require_patients
from lucency.detect.images.sentinet_boundary import Curve, draw_curve, overstep
from lucency.detect.images.sentinet_region import find_regions
from lucency.errors import ModelError
from lucency.explain.median import median_filter
from lucency.records import Float64Array, FloatArray, IntArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, predict, to_grey

NAME = "SentiNet"
BATCH = 16
"""Suspects whose regions are held at once."""
INERT_WIDTH = 7


@dataclass(frozen=True)
class SentiNetSettings:
    """What is cut out, where it is pasted, and how the two features are read.

    form: "logits" or "published", as the module says. attribution: which map; Grad-CAM knows no
    −logit, so with it only unusually high findings are tested. threshold: a region's pixels reach
    this share of the map's maximum. margin_px: by how much the region is widened on each side.
    findings: tested ones an image. donors: N; the pool is twice as many films, at most half of the
    reference. boundary: most clean films that draw the curve. interval: width of an interval of
    confidence (the paper states none).
    """

    form: Literal["logits", "published"] = "logits"
    attribution: Literal["gradient-median", "grad-cam"] = "gradient-median"
    threshold: float = 0.5
    margin_px: int = 1
    findings: int = 2
    donors: int = 50
    boundary: int = 400
    interval: float = 0.04


DEFAULT = SentiNetSettings()
PUBLISHED = SentiNetSettings(
    form="published",
    attribution="grad-cam",
    threshold=0.15,
    margin_px=0,
    findings=1,
    donors=100,
)


@dataclass(frozen=True)
class SentiNet:
    """SentiNet for one victim: images (n, size, size) -> suspicion (n,) float64, larger = more
    suspicious, above 0 = what the paper flags.

    centre, unit, above (K,): median, standard deviation and 95 % quantile of the clean logits.
    donors (2, K, N): for each direction (set, clear) and finding the rows of `pool` (P, size, size)
    onto which is pasted; pool_logits (P, K). noise (size, size): the published inert pattern.
    """

    victim: Victim
    settings: SentiNetSettings
    centre: Float64Array
    unit: Float64Array
    above: Float64Array
    pool: NetworkInputs
    pool_logits: Float64Array
    donors: IntArray
    noise: Tensor
    curve: Curve

    def __call__(self, images: NetworkInputs) -> Float64Array:
        confidence, fooled = self.measure(images)
        nearest = self.settings.form == "published"
        distance = overstep(self.curve, confidence, fooled, nearest=nearest)
        return np.asarray((distance - self.curve.tolerance).max(axis=1))

    def measure(self, images: NetworkInputs) -> tuple[Float64Array, Float64Array]:
        """The two features of each tested finding, (n, F) each: confidence under the inert pattern,
        larger = the place is harmless; how much the region fools, larger = more suspicious."""
        starts = range(0, len(images), BATCH)
        parts = [self._measure_batch(images[start : start + BATCH]) for start in starts]
        empty = np.zeros((0, min(self.settings.findings, len(self.victim.findings))))
        confidence = np.concatenate([empty, *(part[0] for part in parts)])
        return confidence, np.concatenate([empty, *(part[1] for part in parts)])

    def _measure_batch(self, images: NetworkInputs) -> tuple[Float64Array, Float64Array]:
        with frozen(self.victim.network):
            chosen, sign = self._choose(predict(self.victim, images))
        grey = to_grey(images, self.victim.device)
        tested = chosen.shape[1]
        suspects = grey.repeat_interleave(tested, dim=0)
        findings, signs = chosen.reshape(-1), sign.reshape(-1)
        regions = find_regions(
            self.victim,
            suspects,
            findings,
            signs,
            attribution=self.settings.attribution,
            threshold=self.settings.threshold,
            margin_px=self.settings.margin_px,
        )
        rows = self.donors[(signs < 0).astype(int), findings]  # (n F, N)
        logits = self._pasted_logits(suspects, regions, rows)
        confidence, fooled = self._features(logits, rows, findings, signs)
        return confidence.reshape(-1, tested), fooled.reshape(-1, tested)

    def _choose(self, logits: FloatArray) -> tuple[IntArray, IntArray]:
        """The tested findings of each image and their sign, (n, F) each: +1 = unusually high."""
        unusual = (logits - self.centre) / self.unit
        both = self.settings.attribution == "gradient-median" and self.settings.form == "logits"
        rank = np.argsort(-np.abs(unusual) if both else -unusual, axis=1, kind="stable")
        chosen = rank[:, : self.settings.findings]
        low = np.take_along_axis(unusual, chosen, axis=1) < 0
        return chosen, np.where(low & both, -1, 1)

    def _pasted_logits(self, suspects: Tensor, regions: Tensor, rows: IntArray) -> Float64Array:
        """(P, 2 N, K): each of P regions on its N donors, then the inert pattern on them."""
        n_donors = rows.shape[1]
        inert = median_filter(suspects, INERT_WIDTH)
        if self.settings.form == "published":
            inert = self.noise.to(suspects.device).expand_as(suspects)

        def paste(probe: Tensor, copy: Tensor) -> Tensor:
            onto = self.pool[rows[probe.cpu().numpy(), copy.cpu().numpy() % n_donors]]
            is_region = (copy < n_donors).view(-1, 1, 1, 1)
            content = torch.where(is_region, suspects[probe], inert[probe])
            return torch.where(regions[probe], content, to_grey(onto, suspects.device))

        return pair_logits(self.victim, len(suspects), 2 * n_donors, paste)

    def _features(
        self, logits: Float64Array, rows: IntArray, findings: IntArray, signs: IntArray
    ) -> tuple[Float64Array, Float64Array]:
        """Confidence and fooled, (P,) each."""
        with_region, with_inert = np.split(logits, 2, axis=1)
        before = self.pool_logits[rows]  # (P, N, K)
        probes = np.arange(len(rows))
        if self.settings.form == "published":
            fooled = with_region[probes, :, findings] > self.above[findings, None]
            return expit(np.abs(with_inert)).mean(axis=(1, 2)), fooled.mean(axis=1)
        moved = (with_region - before)[probes, :, findings].mean(axis=1)
        disturbed = (np.abs(with_inert - before) / self.unit).mean(axis=(1, 2))
        return np.exp(-disturbed), signs * moved / self.unit[findings]


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: SentiNetSettings = DEFAULT
) -> SentiNet:
    """Draw donors from the clean reference (n, size, size), and the boundary by the other films.

    Calibrate on films that are not in the reference: what is pasted on itself moves nothing. Raises
    DataError for fewer than 8 reference films, ModelError for a victim without gradients.
    """
    require_patients(len(reference))
    if not victim.differentiable:
        raise ModelError(
            f"{NAME} needs the gradients of its network, and this one has none; use STRIP or "
            "SCALE-UP."
        )
    generator = np.random.default_rng([seed, 0x5E])
    order = generator.permutation(len(reference))
    n_pool = min(2 * settings.donors, len(reference) // 2)
    pool, others = reference[order[:n_pool]], reference[order[n_pool:]]
    noise = generator.random(reference.shape[1:], dtype=np.float32)
    with frozen(victim.network):
        logits = predict(victim, reference).astype(np.float64)
    ranked = np.argsort(logits[order[:n_pool]], axis=0, kind="stable").T  # (K, P)
    n_donors = n_pool // 2
    unfitted = SentiNet(
        victim,
        settings,
        centre=np.median(logits, axis=0),
        unit=np.maximum(logits.std(axis=0), 1e-6),
        above=np.quantile(logits, 0.95, axis=0),
        pool=pool,
        pool_logits=logits[order[:n_pool]],
        donors=np.stack([ranked[:, :n_donors], ranked[:, -n_donors:]]),
        noise=torch.from_numpy(noise),
        curve=Curve((0.0,), 0.0, 1.0),
    )
    confidence, fooled = unfitted.measure(others[: settings.boundary])
    curve = draw_curve(
        confidence.ravel(),
        fooled.ravel(),
        interval=settings.interval,
        nearest=settings.form == "published",
    )
    return replace(unfitted, curve=curve)
