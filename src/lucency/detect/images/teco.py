"""TeCo (Liu et al., CVPR 2023, arXiv 2303.18191): do all corruptions change a prediction alike?

The paper corrupts an image in 15 ways at severities 1 to 5 and notes, for each way, the lowest
severity at which the predicted class changes (6 where none does). On a clean image these are much
the same; a trigger withstands some corruptions fully and others not at all. The suspicion is their
standard deviation. Hard labels are enough: the victim may be a black box.

What differs here, and why:

- A film has several predictions or none. Each finding has three states: present (above the clean
  quantile that stands for a specificity of 95 %), suspiciously absent (below the clean 5 %
  quantile; a trigger may clear a finding), or neither. A change is a change of state. Findings that
  start out as neither are not followed: they are what most findings of most films are. Of the
  others the largest deviation counts, since an attack is on one finding. A film without any gets
  0, the least: nothing was predicted, so nothing can be inconsistent.
- Eight corruptions that happen to radiographs instead of fifteen that happen to photographs: no
  weather, no colour, milder steps (`corruptions.py`).

Every corruption is made from the film itself; a published port corrupts the corrupted image again,
75 times over. Cost: 1 forward an image where nothing is predicted; else at most 1 + 8 · 5 = 41,
less because a corruption under which every followed finding has changed is not made worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.detect.images.corruptions import CORRUPTIONS, SEVERITIES, noise_of
from lucency.detect.images.reference import require_patients
from lucency.errors import ConfigError
from lucency.records import Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, predict, to_grey

NAME = "TeCo"
CHUNK = 8
"""Films that are corrupted at a time; a forward pass holds up to 8 corruptions of each."""
NEVER = len(SEVERITIES) + 1


@dataclass(frozen=True)
class TecoSettings:
    """kinds: names of the corruptions. specificity: the share of clean films that a finding's
    operating point calls negative. clears: also follow findings that are suspiciously absent."""

    kinds: tuple[str, ...] = tuple(CORRUPTIONS)
    specificity: float = 0.95
    clears: bool = True


DEFAULT = TecoSettings()


@dataclass(frozen=True)
class Teco:
    """TeCo for one victim: images (N, size, size) -> suspicion (N,) float64, larger = more
    suspicious; 0 to 2.5.

    above, below (K,): the logits above which a finding is present, below which it is suspiciously
    absent (−infinity where nobody asks).
    """

    victim: Victim
    settings: TecoSettings
    above: Float64Array
    below: Float64Array
    seed: int

    def __call__(self, images: NetworkInputs) -> Float64Array:
        state, severity = self.measure(images)
        deviation = severity.std(axis=1)  # (N, K)
        return np.asarray(np.where(state != 0, deviation, 0.0).max(axis=1, initial=0.0))

    def measure(self, images: NetworkInputs) -> tuple[IntArray, IntArray]:
        """state (N, K): 1 present, -1 suspiciously absent, 0 neither. severity (N, kinds, K): the
        lowest at which the state changes, 6 where none does or the finding is not followed."""
        n_findings = len(self.victim.findings)
        states = [np.zeros((0, n_findings), np.int64)]
        severities = [np.zeros((0, len(self.settings.kinds), n_findings), np.int64)]
        with torch.inference_mode(), frozen(self.victim.network):
            for start in range(0, len(images), CHUNK):
                state, severity = self._measure(images[start : start + CHUNK])
                states.append(state)
                severities.append(severity)
        return np.concatenate(states), np.concatenate(severities)

    def _measure(self, images: NetworkInputs) -> tuple[IntArray, IntArray]:
        grey = to_grey(images, self.victim.device)
        noise = noise_of(grey, self.seed)
        state = self._state(grey)
        lowest = np.full((len(images), len(self.settings.kinds), state.shape[1]), NEVER)
        for severity in SEVERITIES:
            waiting = (lowest == NEVER) & (state != 0)[:, None]
            kinds, rows = np.nonzero(waiting.any(axis=2).T)
            if not len(rows):
                break
            changed = self._state(self._corrupt(grey, noise, kinds, rows, severity)) != state[rows]
            before = lowest[rows, kinds]
            lowest[rows, kinds] = np.where(waiting[rows, kinds] & changed, severity, before)
        return state, lowest

    def _corrupt(
        self, grey: Tensor, noise: Tensor, kinds: IntArray, rows: IntArray, severity: int
    ) -> Tensor:
        """One corruption of one film for each of `kinds` (P,), ascending, and `rows` (P,)."""
        parts = []
        for kind in np.unique(kinds):
            chosen = torch.from_numpy(rows[kinds == kind]).to(grey.device)
            corrupt = CORRUPTIONS[self.settings.kinds[kind]]
            parts.append(corrupt(grey[chosen], severity, noise[chosen]))
        return torch.cat(parts)

    def _state(self, grey: Tensor) -> IntArray:
        logits = self.victim.logits(grey).double().cpu().numpy()
        return (logits > self.above).astype(np.int64) - (logits < self.below)


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: TecoSettings = DEFAULT
) -> Teco:
    """Operating points from the clean reference (n, size, size); the seed draws the noise.

    Raises DataError for fewer than 8 reference films, ConfigError for an unknown corruption.
    """
    unknown = [kind for kind in settings.kinds if kind not in CORRUPTIONS]
    if unknown or not settings.kinds:
        raise ConfigError(
            f"TeCo's kinds must be some of {', '.join(CORRUPTIONS)}, got "
            f"{', '.join(unknown) or 'none'}."
        )
    require_patients(len(reference))
    logits = predict(victim, reference).astype(np.float64)
    above = np.quantile(logits, settings.specificity, axis=0)
    below = np.quantile(logits, 1 - settings.specificity, axis=0)
    if not settings.clears:
        below = np.full_like(below, -np.inf)
    return Teco(victim, settings, above, below, seed)
