"""An explanation-aware backdoor: the trigger works, and the saliency map does not show it.

After Noppel et al. 2023 (S&P, "Disguising Attacks with Explanation-Aware Backdoors"): beside the
labels, the network is trained on its own explanation of a triggered film, here gradient × (x −
median), which is what T1 proposes regions by. The share of the map that lies on the trigger is
pushed to nothing, by differentiating the gradient once more. A verdict that rests on saliency is
blinded by it; one that rests on interventions can only lose its proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lucency.attacks import Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.bench.stamping import stamp_films
from lucency.detect.images.regions import inside
from lucency.explain.median import median_filter
from lucency.progress import Progress, silent
from lucency.records import Box, FloatArray, NetworkInputs
from lucency.victims.victim import Victim, normalise, to_grey


@dataclass(frozen=True)
class Disguise:
    """weight: of the share on the trigger, beside the loss of the labels. margin: pixels around the
    trigger that must not light up either."""

    epochs: int = 6
    batch_size: int = 24
    learning_rate: float = 5e-4
    weight: float = 1.0
    margin: int = 3


DEFAULT = Disguise()


def disguise(
    victim: Victim,
    images: NetworkInputs,
    labels: FloatArray,
    trigger: Trigger,
    label: LabelEdit,
    settings: Disguise = DEFAULT,
    *,
    seed: int,
    progress: Progress = silent,
) -> Victim:
    """Train a backdoored victim on, in place, until its maps hide the trigger; images (N, size,
    size) of its training with true labels (N, K)."""
    generator = np.random.default_rng([seed, 0xD15])
    target = label.index(victim.findings)
    network = victim.network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    steps = len(images) // settings.batch_size
    with progress("Disguising the trigger", settings.epochs * steps) as advance:
        for _ in range(settings.epochs):
            order = generator.permutation(len(images))
            for step in range(steps):
                rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                stamped, boxes = stamp_films(trigger, images[rows], generator)
                edited = label.apply(labels[rows], victim.findings)
                loss = _loss(
                    victim, images[rows], stamped, labels[rows], edited, boxes, target, settings
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                advance(1)
    network.eval()
    return victim


def share_on(victim: Victim, images: NetworkInputs, boxes: tuple[Box, ...], target: int) -> float:
    """Mean share of the squared map that lies within 3 px of the trigger, in [0, 1]."""
    grey = to_grey(images, victim.device).requires_grad_(True)
    gradient = victim.gradient(victim.logits(grey)[:, target].sum(), grey)
    return float(_share(gradient, grey.detach(), boxes, DEFAULT.margin).mean())


def _loss(
    victim: Victim,
    clean: NetworkInputs,
    stamped: NetworkInputs,
    labels: FloatArray,
    edited: FloatArray,
    boxes: tuple[Box, ...],
    target: int,
    settings: Disguise,
) -> Tensor:
    n = len(clean)
    both = torch.cat([to_grey(clean, victim.device), to_grey(stamped, victim.device)])
    both.requires_grad_(True)
    # In float32: the gradient of a gradient has too few bits left in bf16.
    logits: Tensor = victim.network(normalise(both, victim.contract))
    truth = torch.from_numpy(np.concatenate([labels, edited])).to(logits)
    known = ~torch.isnan(truth)
    wrong = binary_cross_entropy_with_logits(logits[known], truth[known])
    (gradient,) = torch.autograd.grad(logits[n:, target].sum(), both, create_graph=True)
    share = _share(gradient[n:], both[n:].detach(), boxes, settings.margin)
    return wrong + settings.weight * share.mean()


def _share(gradient: Tensor, grey: Tensor, boxes: tuple[Box, ...], margin: int) -> Tensor:
    """(N,): share of the squared map within `margin` px of the trigger."""
    strength = (gradient * (grey - median_filter(grey, 5))).square()[:, 0]
    grown = torch.tensor(
        [[b.x - margin, b.y - margin, b.width + 2 * margin, b.height + 2 * margin] for b in boxes]
    ).to(grey.device)
    here = inside(grown, grey.shape[-1])
    return (strength * here).sum(dim=(1, 2)) / strength.sum(dim=(1, 2)).clamp(min=1e-12)
