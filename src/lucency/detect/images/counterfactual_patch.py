"""T1, the counterfactual patch test: repair one tiny region, and see which finding falls.

On a clean film no region of a few pixels carries much of any finding: real evidence is wider and
redundant. A small trigger must carry its whole effect in one. So the statistic is the largest
change of a finding's logit that repairing one small region can bring, in both directions (a trigger
can also clear a finding), less half of what the next best region elsewhere brings: where a film
is unstable everywhere, no single place is suspicious. Half, so that a trigger stamped twice keeps
half of its score. Regions are proposed by gradient × (x − smoothed x) and judged by
forward passes alone, so a network that lies in its gradients can hide a region, never invent one;
against hiding, the strongest contrasts are proposed as well, whatever the gradient says.

`glance` is the cheap form for every film: one gradient, one region a scale. `examine` is the whole
test, for the films that a glance finds unusual: several findings and regions, a second fill (the
weaker effect counts, since a fill can itself look like a finding), and pairs of regions repaired
together, against a trigger that stands there twice.

Nearest relatives: NEO (Udeshi et al. 2019), Februus (Doan et al. 2020), SentiNet (Chou et al.
2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.detect.images.evidence import Evidence
from lucency.detect.images.regions import apart, inside, peaks, repeated, ring_fill, smooth
from lucency.victims.victim import Victim

NAME = "T1 counterfactual patch"


@dataclass(frozen=True)
class PatchTest:
    """The test's settings.

    scales: sides of the regions, network pixels; glance: those of a glance, where a region repairs
    whatever is smaller than it. No side is above a twelfth of the film: there, a region holds
    real findings. findings: how many findings propose regions, the most unusual ones.
    regions: proposals a finding and scale. confirm: strongest proposals a scale that are repaired
    once more, with another fill; the weaker effect counts. rival: share of the next best region's
    effect that is taken off. pairs: whether the two best regions of a scale that do not touch are
    also repaired together.
    """

    scales: tuple[int, ...] = (1, 3, 5, 8)
    glance: tuple[int, ...] = (3, 8)
    findings: int = 2
    regions: int = 2
    confirm: int = 1
    rival: float = 0.5
    pairs: bool = True


DEFAULT = PatchTest()
SHARE = 12


def fitting(sides: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The sides, none larger than a film of `size` pixels allows, but for the smallest one."""
    largest = max(size // SHARE, min(sides))
    return tuple(sorted({min(side, largest) for side in sides}))


def glance(
    victim: Victim, grey: Tensor, logits: Tensor, gradient: Tensor | None, settings: PatchTest
) -> Evidence:
    """The best region of each scale of a glance, for grey (N, 1, size, size) with logits (N, K).

    gradient (N, 1, size, size): of a weighted sum of logits, by which regions are proposed; None =
    by contrast alone. A forward an image and scale.
    """
    boxes, fills = [], []
    for scale in fitting(settings.glance, grey.shape[-1]):
        fill = smooth(grey, scale)
        boxes.append(peaks(_first_order(grey, fill, gradient), scale, 1))
        fills.append(fill)
    at = torch.cat(boxes, dim=1)  # (N, S, 4)
    effects = logits[:, None] - _repaired(victim, grey, at, torch.cat(fills, dim=1))
    return _evidence(effects, effects, logits, at[:, :, None].expand(-1, -1, logits.shape[1], -1))


def examine(
    victim: Victim,
    grey: Tensor,
    logits: Tensor,
    gradients: list[Tensor | None],
    settings: PatchTest,
) -> Evidence:
    """The whole test for grey (N, 1, size, size) with logits (N, K); each gradient (N, 1, size,
    size), or None for contrast alone, proposes regions.

    Returns effects in S K columns with the region behind each: the findings at each scale in turn,
    since a larger region moves more on any film and has to be compared with its like.
    """
    suspicious, effects, where = [], [], []
    for scale in fitting(settings.scales, grey.shape[-1]):
        fill = smooth(grey, scale)
        boxes = torch.cat(
            [peaks(_first_order(grey, fill, g), scale, settings.regions) for g in gradients], dim=1
        )
        alone, effect, box = _judge(victim, grey, fill, logits, boxes, settings)
        suspicious.append(alone)
        effects.append(effect)
        where.append(box)
    return _evidence(
        torch.stack(suspicious, dim=1), torch.stack(effects, dim=1), logits, torch.stack(where, 1)
    )


def _first_order(grey: Tensor, fill: Tensor, gradient: Tensor | None) -> Tensor:
    structure = grey - fill
    return structure if gradient is None else structure * gradient


def _evidence(suspicious: Tensor, effects: Tensor, logits: Tensor, boxes: Tensor) -> Evidence:
    """suspicious, effects (N, S, K); boxes (N, S, K, 4)."""
    n_scales, n_findings = effects.shape[1:]
    every = logits[:, None].expand(-1, n_scales, -1)
    return Evidence(
        effects=suspicious.flatten(1).double().cpu().numpy(),
        findings=np.tile(np.arange(n_findings), n_scales),
        groups=np.repeat(np.arange(n_scales), n_findings),
        logits=every.flatten(1).double().cpu().numpy(),
        repaired=(every - effects).flatten(1).double().cpu().numpy(),
        boxes=boxes.flatten(1, 2).cpu().numpy().astype(np.int64),
    )


def _judge(
    victim: Victim,
    grey: Tensor,
    fill: Tensor,
    logits: Tensor,
    boxes: Tensor,
    settings: PatchTest,
) -> tuple[Tensor, Tensor, Tensor]:
    """Repair boxes (N, P, 4) of one scale. For each finding, of its best box: the effect less its
    rival's (N, K), the effect (N, K), the box (N, K, 4)."""
    # Findings often propose the same box; it is repaired, counts and is confirmed once.
    effects = _effects_of_each(victim, grey, boxes, fill, logits)  # (N, P, K)
    strong = effects.abs().amax(dim=2).topk(min(settings.confirm, boxes.shape[1])).indices
    again = boxes.gather(1, strong[..., None].expand(-1, -1, 4))
    second = logits[:, None] - _repaired(victim, grey, again, ring_fill(grey, again))
    pick = strong[..., None].expand(-1, -1, effects.shape[2])
    effects = effects.scatter(1, pick, _weaker(effects.gather(1, pick), second))
    best = effects.abs().argmax(dim=1)  # (N, K)
    effect = effects.gather(1, best[:, None])[:, 0]
    rival = settings.rival * _rival(effects, best, boxes)
    if settings.pairs:
        effect = _larger(effect, _pair_effect(victim, grey, fill, logits, effects, boxes))
    alone = effect.sign() * (effect.abs() - rival).clamp(min=0)
    return alone, effect, boxes.gather(1, best[..., None].expand(-1, -1, 4))


def _effects_of_each(
    victim: Victim, grey: Tensor, boxes: Tensor, fill: Tensor, logits: Tensor
) -> Tensor:
    """(N, P, K): what repairing each box changes; 0 for a box that stands earlier in the list."""
    film, place = (~repeated(boxes)).nonzero(as_tuple=True)
    chosen = boxes[film, place][:, None]
    alone = _repaired(victim, grey[film], chosen, fill[film])[:, 0]
    effects = torch.zeros(*boxes.shape[:2], logits.shape[1], device=grey.device)
    effects[film, place] = logits[film] - alone
    return effects


def _rival(effects: Tensor, best: Tensor, boxes: Tensor) -> Tensor:
    """(N, K) >= 0: the largest effect, in the direction of the best one, of a box that does not
    touch the best one."""
    separate = apart(boxes).float()  # (N, P, P)
    allowed = separate.gather(1, best[..., None].expand(-1, -1, separate.shape[2]))  # (N, K, P)
    sign = effects.gather(1, best[:, None]).sign()
    return (effects * sign * allowed.transpose(1, 2)).amax(dim=1).clamp(min=0)


def _pair_effect(
    victim: Victim, grey: Tensor, fill: Tensor, logits: Tensor, effects: Tensor, boxes: Tensor
) -> Tensor:
    """(N, K): what repairing the strongest box and the strongest one apart from it does together.
    One forward an image."""
    strength = effects.abs().amax(dim=2)  # (N, P)
    first = strength.argmax(dim=1, keepdim=True)
    far = apart(boxes).gather(1, first[..., None].expand(-1, -1, boxes.shape[1]))[:, 0]
    second = strength.masked_fill(~far, -1.0).argmax(dim=1, keepdim=True)
    size = grey.shape[-1]
    both = inside(boxes.gather(1, torch.cat([first, second], 1)[..., None].expand(-1, -1, 4)), size)
    repaired = torch.where(both.any(dim=1, keepdim=True), fill, grey)
    return logits - victim.logits(repaired)


def _repaired(victim: Victim, grey: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Logits (N, P, K) with each box in turn replaced by `fill`, (N, P or 1, H or 1, W or 1)."""
    n, count = boxes.shape[:2]
    size = grey.shape[-1]
    repaired = torch.where(inside(boxes, size), fill, grey.expand(-1, count, -1, -1))
    return victim.logits(repaired.reshape(n * count, 1, size, size)).view(n, count, -1)


def _weaker(a: Tensor, b: Tensor) -> Tensor:
    """Of two effects the smaller one, and 0 where they disagree in sign."""
    return torch.where(a * b > 0, torch.minimum(a.abs(), b.abs()) * a.sign(), torch.zeros_like(a))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """Of two effects of one sign the larger one; the first where they disagree in sign."""
    return torch.where((a * b > 0) & (b.abs() > a.abs()), b, a)
