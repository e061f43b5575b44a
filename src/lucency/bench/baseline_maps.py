"""Maps that know nothing of the network: what an explanation has to beat.

Of sixteen methods that looked for patch triggers, most did no better than an edge detector (Casper
et al. 2023, arXiv 2302.10894).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from lucency.explain import Attribution, Explanation
from lucency.explain.batching import logits_of
from lucency.explain.gradient_median import WIDTH
from lucency.explain.median import median_filter
from lucency.victims.victim import Victim

EDGES, STRUCTURE, CHANCE = "edges (Sobel)", "|x − median|", "random"
BASELINES = (EDGES, STRUCTURE, CHANCE)
_ACROSS = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def edges(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
    """Maps (N, F, H, W): the magnitude of Sobel's gradient, the same for every finding."""
    across = torch.tensor(_ACROSS, device=grey.device)[None, None]
    padded = pad(grey, (1, 1, 1, 1), mode="replicate")
    x, y = conv2d(padded, across), conv2d(padded, across.transpose(2, 3))
    return _attribution(victim, grey, torch.hypot(x, y), findings)


def structure(victim: Victim, grey: Tensor, findings: Sequence[int]) -> Attribution:
    """Maps (N, F, H, W): |x - median(x)|, which is gradient-median without the gradient."""
    return _attribution(victim, grey, (grey - median_filter(grey, WIDTH)).abs(), findings)


def chance(victim: Victim, grey: Tensor, findings: Sequence[int], *, seed: int) -> Attribution:
    """Maps (N, F, H, W): uniform noise; image i of a call gets the i-th draw."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(grey.shape, generator=generator).to(grey.device)
    return _attribution(victim, grey, noise, findings)


def baselines(seed: int) -> dict[str, Explanation]:
    """The baselines by name, in the order of the table."""
    return {EDGES: edges, STRUCTURE: structure, CHANCE: partial(chance, seed=seed)}


def _attribution(
    victim: Victim, grey: Tensor, maps: Tensor, findings: Sequence[int]
) -> Attribution:
    many = maps.expand(-1, len(findings), -1, -1).contiguous()
    return Attribution(many, logits_of(victim, grey), tuple(findings))
