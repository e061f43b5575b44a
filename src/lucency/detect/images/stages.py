"""The two stages of a screening: a look at every film, and the whole test for the unusual ones.

A look: one pass for logits and features, the medians of T0, the gradient of the one finding that
the others explain least, and one repaired region a scale: 1 + 2 forwards, 1 forward and 1 backward,
2 forwards. An engine computes all but the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.detect.images import counterfactual_patch
from lucency.detect.images.calibrate import Scale, fit_scale
from lucency.detect.images.cofinding import fit_residuals, residuals
from lucency.detect.images.counterfactual_patch import PatchTest
from lucency.detect.images.covering import cover
from lucency.detect.images.evidence import Evidence, concatenate
from lucency.detect.images.median_disagreement import WIDTHS, disagree
from lucency.detect.images.regions import smooth
from lucency.detect.images.whitening import Whitening
from lucency.explain.batching import batches
from lucency.progress import Progress, silent
from lucency.records import Float64Array, FloatArray, IntArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

BATCH = 32
GRADIENTS_MB = 256.0
# Gradients are taken at this share of the film, the rest being the film without structures of
# SMOOTHED pixels. There a small trigger still acts, at .7 of its contrast, and a network that was
# taught to hide it in its gradients was not taught to hide that one.
FILM_SHARE = 0.7
SMOOTHED = 5


@dataclass(frozen=True)
class Usual:
    """What clean films are like before anything is repaired: the scale of T0, what each finding's
    logit leads to expect of the others, and its standard deviation, (K,)."""

    t0: Scale
    cofindings: Whitening
    deviation: Float64Array

    def residuals(self, logits: FloatArray) -> Float64Array:
        """logits (N, K) -> (N, K): how far each is above what the others lead to expect."""
        return residuals(self.cofindings, logits)


def fit_usual(disagreement: Evidence) -> Usual:
    """From T0's evidence on clean films."""
    n_findings = int(disagreement.findings.max()) + 1
    logits = disagreement.logits[:, :n_findings]
    deviation = np.maximum(logits.std(axis=0), 1e-6)
    return Usual(fit_scale(disagreement), fit_residuals(logits), deviation)


@dataclass(frozen=True)
class Look:
    """What a look at N films saw: logits (N, K), features (N, D) or None where the network has
    none, and the evidence of T0 and of a glance of T1."""

    logits: FloatArray
    features: FloatArray | None
    disagreement: Evidence
    patches: Evidence

    def __len__(self) -> int:
        return len(self.logits)

    def rows(self, rows: IntArray) -> Look:
        """What was seen of these films alone."""
        return Look(
            self.logits[rows],
            None if self.features is None else self.features[rows],
            self.disagreement.rows(rows),
            self.patches.rows(rows),
        )


def disagreement_of(
    victim: Victim, images: NetworkInputs, *, progress: Progress = silent
) -> Evidence:
    """T0 alone, from which its scale is fitted before anyone can look."""
    parts = []
    with torch.inference_mode(), frozen(victim.network), progress("T0", len(images)) as advance:
        for start in range(0, len(images), BATCH):
            grey = to_grey(images[start : start + BATCH], victim.device)
            parts.append(disagree(victim, grey, victim.logits(grey)))
            advance(len(grey))
    return concatenate(parts)


def look(
    victim: Victim,
    images: NetworkInputs,
    usual: Usual,
    settings: PatchTest,
    *,
    progress: Progress = silent,
) -> Look:
    """images (N, size, size), N ≥ 1."""
    parts = []
    with frozen(victim.network), progress("Looking", len(images)) as advance:
        for start in range(0, len(images), BATCH):
            grey = to_grey(images[start : start + BATCH], victim.device)
            parts.append(_look(victim, grey, usual, settings))
            advance(len(grey))
    features = [p.features for p in parts if p.features is not None]
    return Look(
        np.concatenate([p.logits for p in parts]),
        np.concatenate(features) if features else None,
        concatenate([p.disagreement for p in parts]),
        concatenate([p.patches for p in parts]),
    )


def _look(victim: Victim, grey: Tensor, usual: Usual, settings: PatchTest) -> Look:
    with torch.inference_mode():
        logits, features = victim.embed(grey)
        disagreement = disagree(victim, grey, logits)
    gradient = None
    if victim.differentiable:
        order = leading(disagreement, logits.cpu().numpy(), usual)
        finding = torch.from_numpy(order[:, :1]).to(grey.device)
        gradient = torch.cat(
            [_on_the_way(victim, grey[part], finding[part]) for part in _parts(victim, grey)]
        )
    with torch.inference_mode():
        patches = counterfactual_patch.glance(victim, grey, logits, gradient, settings)
    return Look(
        logits.cpu().numpy(),
        None if features is None else features.cpu().numpy(),
        disagreement,
        patches,
    )


def examine(
    victim: Victim,
    images: NetworkInputs,
    seen: Look,
    usual: Usual,
    settings: PatchTest,
    *,
    progress: Progress = silent,
) -> Evidence:
    """The whole of T1 for films (N, size, size) that were looked at, N ≥ 1."""
    order = leading(seen.disagreement, seen.logits, usual)[:, : settings.findings]
    parts = []
    with frozen(victim.network), progress("Examining", len(images)) as advance:
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            grey = to_grey(images[rows], victim.device)
            logits = torch.from_numpy(seen.logits[rows]).to(grey)
            gradients = _gradients(victim, grey, torch.from_numpy(order[rows]).to(grey.device))
            with torch.inference_mode():
                if gradients:
                    parts.append(
                        counterfactual_patch.examine(victim, grey, logits, gradients, settings)
                    )
                else:
                    parts.append(_examine_by_covering(victim, grey, logits, usual, settings))
            advance(len(grey))
    return concatenate(parts)


def leading(disagreement: Evidence, logits: FloatArray, usual: Usual) -> IntArray:
    """(N, K): each film's findings, the most unusual one first: in turn the one that the others
    explain least, and the one that the median moves most.

    A trigger moves its finding alone, and what carries it there is found by its gradient even where
    the median, which takes away the film's own detail as well, moves another finding more.
    """
    widths = np.abs(usual.t0.standardise(disagreement)).reshape(len(logits), len(WIDTHS), -1)
    turn = 2 * _rank(np.abs(usual.residuals(logits)))
    by_median = 2 * _rank(widths.max(axis=1)) + 1
    return np.argsort(np.minimum(turn, by_median), axis=1, kind="stable")


def _rank(strength: Float64Array) -> IntArray:
    """(N, K): 0 for the largest of each row."""
    order = np.argsort(-strength, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def _gradients(victim: Victim, grey: Tensor, order: Tensor) -> list[Tensor | None]:
    """What regions are proposed by, (N, 1, size, size) each: the gradient of each leading finding;
    that of the first one on the way from the smooth film, by which a look proposes; and None, for
    contrast alone, which no network can lie about. Empty without gradients."""
    if not victim.differentiable:
        return []
    parts = [_gradients_of(victim, grey[part], order[part]) for part in _parts(victim, grey)]
    return [*(torch.cat(of_each) for of_each in zip(*parts, strict=True)), None]


def _gradients_of(victim: Victim, grey: Tensor, order: Tensor) -> list[Tensor]:
    watched = grey.clone().requires_grad_(True)
    logits = victim.logits(watched)
    chosen = (logits.gather(1, order[:, i : i + 1]).sum() for i in range(order.shape[1]))
    here = [victim.gradient(scalar, watched) for scalar in chosen]
    return [*here, _on_the_way(victim, grey, order[:, :1])]


def _parts(victim: Victim, grey: Tensor) -> Iterator[slice]:
    """As many films at once as a pass with gradients has memory for."""
    return batches(victim, len(grey), budget_mb=GRADIENTS_MB)


def _on_the_way(victim: Victim, grey: Tensor, finding: Tensor) -> Tensor:
    """The gradient of each film's finding (N, 1) on the way from the smooth film to the film."""
    between = FILM_SHARE * grey + (1 - FILM_SHARE) * smooth(grey, SMOOTHED)
    between.requires_grad_(True)
    return victim.gradient(victim.logits(between).gather(1, finding).sum(), between)


def _examine_by_covering(
    victim: Victim, grey: Tensor, logits: Tensor, usual: Usual, settings: PatchTest
) -> Evidence:
    """T1 on the regions that a covering scan of each film proposes."""
    deviation = torch.from_numpy(usual.deviation).to(logits)
    parts = []
    for film, own in zip(torch.split(grey, 1), torch.split(logits, 1), strict=True):
        regions = cover(victim, film, deviation).boxes
        attention = torch.zeros_like(film)
        for rank, (x, y, w, h) in enumerate(regions[: settings.findings * 2].tolist()):
            attention[..., y : y + h, x : x + w] += 1.0 / (1 + rank)
        parts.append(counterfactual_patch.examine(victim, film, own, [attention], settings))
    return concatenate(parts)
