"""MM-BD: how far any input at all, film or not, can drive a finding.

Wang et al. 2024, "MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor
Pattern Types Using a Maximum Margin Statistic" (IEEE S&P, arXiv 2205.06900). A backdoor lifts what
its class can reach over all inputs; no clean image is needed. They maximise the margin of a class's
logit over all others by projected gradient ascent from random images.

Findings do not exclude each other, so a margin to the next has no meaning: here the logit itself is
driven up and down, in standard deviations of its clean values. Measured beside it, margins to the
other findings vary more among clean models and told fewer backdoored ones apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lucency.detect.models.evidence import Evidence, score
from lucency.detect.models.subject import SIGNS, Subject
from lucency.explain.batching import micro_batch
from lucency.explain.gradients import with_gradients
from lucency.progress import Progress, silent
from lucency.records import Float64Array

NAME = "maximum margin"
FORM = "any image"


@dataclass(frozen=True)
class Ascent:
    """steps of Adam from one random image an item, with `rate`, fraction of the grey range."""

    steps: int = 25
    rate: float = 0.05


DEFAULT = Ascent()


def margins(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """As a test: how far any input drives each finding."""
    scores = score(maximum_margin(subject, seed, progress=progress))[..., None]
    return Evidence(NAME, "gradients, no films but for the scale", (FORM,), scores, None)


def maximum_margin(
    subject: Subject, seed: int, ascent: Ascent = DEFAULT, progress: Progress = silent
) -> Float64Array:
    """(2, K): the farthest from its clean mean that any image in [0, 1] drives each finding's logit
    in either direction, in standard deviations of its clean values; larger = more suspicious.
    2 · K images forward and backward a step. Raises ModelError for a model without gradients."""
    k, size, device = subject.n_findings, subject.side, subject.films.device
    finding = torch.arange(k, device=device).repeat(2)
    sign = torch.tensor(SIGNS, dtype=torch.float32, device=device).repeat_interleave(k)
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(2 * k, 1, size, size, generator=draw).to(device).requires_grad_(True)
    mean = torch.tensor(subject.logits.mean(axis=0), dtype=torch.float32, device=device)
    spread = torch.tensor(subject.spread, dtype=torch.float32, device=device)
    best = torch.full((2 * k,), -torch.inf, device=device)
    optimiser = torch.optim.Adam([images], lr=ascent.rate)
    parts = torch.split(torch.arange(2 * k, device=device), micro_batch(subject.victim))
    with (
        with_gradients(subject.victim, NAME) as victim,
        progress(NAME, ascent.steps) as advance,
    ):
        for _ in range(ascent.steps):
            images.grad = torch.zeros_like(images)
            for part in parts:
                leaf = images.detach()[part].requires_grad_(True)
                driven = (victim.logits(leaf) - mean) / spread
                reached = driven.gather(1, finding[part, None])[:, 0] * sign[part]
                images.grad[part] = -victim.gradient(reached.sum(), leaf)
                best[part] = torch.maximum(best[part], reached.detach())
            optimiser.step()
            with torch.no_grad():
                images.clamp_(0, 1)
            advance(1)
    return np.asarray(best.double().cpu().numpy().reshape(2, k))
