"""MM-BD: how far any input at all, film or not, can drive a finding.

Wang et al. 2024, "MM-BD: Post-Training Detection of Backdoor Attacks with Arbitrary Backdoor
Pattern Types Using a Maximum Margin Statistic" (IEEE S&P, arXiv 2205.06900). A backdoor lifts what
its class can reach over all inputs; no clean image is needed. They maximise the margin of a class's
logit over all others by projected gradient ascent from random images.

Findings do not exclude each other, so a margin to the next has no meaning for an attack that sets
or clears one: here the logit itself is driven up and down, in standard deviations of its clean
values. For an attack that replaces all labels the margin is kept beside it.
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
FORMS = "logit and margin over the other findings"


@dataclass(frozen=True)
class Ascent:
    """restarts: random images an item; steps of Adam with `rate`, fraction of the grey range."""

    restarts: int = 2
    steps: int = 25
    rate: float = 0.05


DEFAULT = Ascent()


def margins(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """As a test: how far any input drives each finding, and its margin over the others; scores are
    averaged over both."""
    reached = maximum_margin(subject, seed, progress=progress)
    scores = score(reached).mean(axis=2, keepdims=True)
    return Evidence(NAME, "gradients, no films but for the scale", (FORMS,), scores, None)


def maximum_margin(
    subject: Subject, seed: int, ascent: Ascent = DEFAULT, progress: Progress = silent
) -> Float64Array:
    """(2, K, 2): the largest logit, less its clean mean, and the largest margin over the other
    findings, that any image in [0, 1] reaches in either direction, in standard deviations of the
    clean logits; larger = more suspicious. 4 · K · restarts images forward and backward a step.
    Raises ModelError for a model without gradients."""
    k, size, device = subject.n_findings, subject.side, subject.films.device
    forms, directions, findings, _ = (
        torch.from_numpy(axis.ravel()).to(device)
        for axis in np.meshgrid(range(2), range(2), range(k), range(ascent.restarts), indexing="ij")
    )
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(len(forms), 1, size, size, generator=draw).to(device).requires_grad_(True)
    sign = torch.tensor(SIGNS, dtype=torch.float32, device=device)[directions]
    mean = torch.tensor(subject.logits.mean(axis=0), dtype=torch.float32, device=device)
    spread = torch.tensor(subject.spread, dtype=torch.float32, device=device)
    best = torch.full((len(forms),), -torch.inf, device=device)
    optimiser = torch.optim.Adam([images], lr=ascent.rate)
    parts = torch.split(torch.arange(len(forms), device=device), micro_batch(subject.victim))
    with (
        with_gradients(subject.victim, NAME) as victim,
        progress(NAME, ascent.steps) as advance,
    ):
        for _ in range(ascent.steps):
            images.grad = torch.zeros_like(images)
            for part in parts:
                leaf = images.detach()[part].requires_grad_(True)
                driven = (victim.logits(leaf) - mean) / spread * sign[part, None]
                own = driven.gather(1, findings[part, None])[:, 0]
                others = driven.scatter(1, findings[part, None], -torch.inf).amax(dim=1)
                reached = torch.where(forms[part] == 0, own, own - others)
                images.grad[part] = -victim.gradient(reached.sum(), leaf)
                best[part] = torch.maximum(best[part], reached.detach())
            optimiser.step()
            with torch.no_grad():
                images.clamp_(0, 1)
            advance(1)
    found = best.double().cpu().numpy().reshape(2, 2, k, ascent.restarts).max(axis=-1)
    return np.asarray(found.transpose(1, 2, 0))
