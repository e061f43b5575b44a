"""NeuronInspect: are a finding's explanations sparse, smooth and always in the same place?

Huang et al. 2019, "NeuronInspect: Detecting Backdoors in Neural Networks via Output Explanations"
(arXiv 1911.07399). A backdoored output looks for its trigger on clean films as well: its heatmaps
are sparser, smoother and more persistent than those of other outputs. Nothing is optimised. They
sum three features with weights of their own; here each is a budget of its own, so that none has to
be weighed, and all are compared with the other findings.

A heatmap is |∂logit / ∂pixel| at the network's resolution, divided by its largest value. It has no
sign that says whether a trigger would set or clear, so both directions have the same scores.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lucency.detect.models.evidence import Evidence
from lucency.detect.models.subject import Subject
from lucency.explain.gradients import gradients
from lucency.progress import Progress, silent
from lucency.records import Float64Array

NAME = "explanation statistics"
FEATURES = ("sparse", "smooth", "persistent")
FILMS = 24
TOP = 0.01
"""Share of a film's pixels, the hottest, that persistence is about."""


def explanation_statistics(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The three features of every finding's heatmaps; one forward and K backwards a film. Raises
    ModelError for a model without gradients."""
    rows = np.random.default_rng([seed, 0x415]).permutation(len(subject.films))[:FILMS]
    films = subject.films[torch.from_numpy(np.sort(rows))]
    every = tuple(range(subject.n_findings))
    with progress(NAME, len(films)) as advance:
        maps, _ = gradients(subject.victim, films, every, method=NAME)
        advance(len(films))
    scores = features(maps.abs())
    return Evidence(NAME, "gradients", FEATURES, np.stack([scores, scores]), None)


def features(maps: Tensor) -> Float64Array:
    """maps (N, K, H, W) ≥ 0, N ≥ 2 -> (K, 3), larger = more suspicious: logarithms of one over the
    mean height of a map, of one over its mean difference from pixel to pixel, and of how much of
    the hottest pixels of one film are among those of another, as a multiple of chance."""
    scaled = (maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30)).double()
    height = scaled.mean(dim=(2, 3))
    rough = scaled.diff(dim=2).abs().mean(dim=(2, 3)) + scaled.diff(dim=3).abs().mean(dim=(2, 3))
    n, n_pixels = len(maps), maps.shape[2] * maps.shape[3]
    hot = max(1, round(TOP * n_pixels))
    best = maps.flatten(2).topk(hot, dim=2).indices
    count = torch.zeros(maps.shape[1], n_pixels, device=maps.device, dtype=torch.float64)
    for film in best:
        count.scatter_add_(1, film, torch.ones_like(film, dtype=torch.float64))
    # Of all pairs of films: hot pixels that both have, of those that one has.
    shared = (count * (count - 1)).sum(dim=1) / (n * (n - 1) * hot)
    persistent = torch.log1p(shared * n_pixels / hot)
    sparse = -height.clamp(min=1e-12).log().mean(dim=0)
    smooth = -rough.clamp(min=1e-12).log().mean(dim=0)
    return np.asarray(torch.stack([sparse, smooth, persistent], dim=1).cpu().numpy())
