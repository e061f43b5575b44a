"""T1, the counterfactual patch test: repair one tiny region, and see which finding falls.

On a clean film no region of a few pixels carries much of any finding: real evidence is wider and
redundant. A small trigger must carry its whole effect in one. So the statistic is the largest
change of a finding's logit that repairing one small region can bring, in both directions (a trigger
can also clear a finding), less half of what the next best region elsewhere brings: where a film
is unstable everywhere, no single place is suspicious. Half, so that a trigger stamped twice keeps
half of its score. Regions are proposed by gradient × (x − median) and judged by
forward passes alone, so a network that lies in its gradients can hide a region, never invent one.

Nearest relatives: NEO (Udeshi et al. 2019), Februus (Doan et al. 2020), SentiNet (Chou et al.
2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from lucency.detect.images.evidence import Evidence, concatenate
from lucency.explain.median import median_filter
from lucency.progress import Progress, silent
from lucency.records import Float64Array, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

NAME = "T1 counterfactual patch"


@dataclass(frozen=True)
class PatchTest:
    """The test's settings.

    scales: sides of the regions, network pixels. findings: how many findings propose regions (the
    most disagreeing ones of T0). regions: proposals a finding and scale. confirm: strongest
    proposals a scale that are repaired once more, with another fill; the weaker effect counts.
    rival: share of the next best region's effect that is taken off.
    """

    scales: tuple[int, ...] = (1, 3, 5)
    findings: int = 3
    regions: int = 2
    confirm: int = 2
    rival: float = 0.5


DEFAULT = PatchTest()


def measure(
    victim: Victim,
    images: NetworkInputs,
    disagreement: Float64Array,
    settings: PatchTest = DEFAULT,
    *,
    batch_size: int = 16,
    progress: Progress = silent,
) -> Evidence:
    """images (N, size, size); disagreement (N, K) >= 0, T0's standardised, to choose findings.

    Returns effects in S K columns with the region behind each: the findings at each scale in turn,
    since a larger region moves more on any film and has to be compared with its like.
    """
    parts = []
    with frozen(victim.network), progress(NAME, len(images)) as advance:
        for start in range(0, len(images), batch_size):
            grey = to_grey(images[start : start + batch_size], victim.device)
            chosen = torch.from_numpy(disagreement[start : start + batch_size])
            parts.append(_measure_batch(victim, grey, chosen, settings))
            advance(len(grey))
    return concatenate(parts)


def _measure_batch(
    victim: Victim, grey: Tensor, disagreement: Tensor, settings: PatchTest
) -> Evidence:
    logits, proposals = _propose(victim, grey, disagreement, settings)
    smooth = median_filter(grey, 7)
    with torch.inference_mode():
        scales = [_judge(victim, grey, smooth, logits, boxes, settings) for boxes in proposals]
    suspicious, effects, where = (torch.cat(parts, dim=1) for parts in zip(*scales, strict=True))
    every = logits.repeat(1, len(scales))
    return Evidence(
        effects=suspicious.double().cpu().numpy(),
        findings=np.tile(np.arange(logits.shape[1]), len(scales)),
        groups=np.repeat(np.arange(len(scales)), logits.shape[1]),
        logits=every.double().cpu().numpy(),
        repaired=(every - effects).double().cpu().numpy(),
        boxes=where.cpu().numpy().astype(np.int64),
    )


def _judge(
    victim: Victim,
    grey: Tensor,
    smooth: Tensor,
    logits: Tensor,
    boxes: Tensor,
    settings: PatchTest,
) -> tuple[Tensor, Tensor, Tensor]:
    """Repair boxes (N, P, 4) of one scale. For each finding, of its best box: the effect less its
    rival's (N, K), the effect (N, K), the box (N, K, 4)."""
    effects = logits[:, None] - _repaired_logits(victim, grey, boxes, smooth)  # (N, P, K)
    # Findings often propose the same box; it counts, and is confirmed, once.
    effects = effects.masked_fill(_repeated(boxes)[..., None], 0.0)
    strong = effects.abs().amax(dim=2).topk(min(settings.confirm, boxes.shape[1])).indices
    again = boxes.gather(1, strong[..., None].expand(-1, -1, 4))
    second = logits[:, None] - _repaired_logits(victim, grey, again, _ring_fill(grey, again))
    pick = strong[..., None].expand(-1, -1, effects.shape[2])
    effects = effects.scatter(1, pick, _weaker(effects.gather(1, pick), second))
    best = effects.abs().argmax(dim=1)  # (N, K)
    effect = effects.gather(1, best[:, None])[:, 0]
    rival = settings.rival * _rival(effects, best, boxes)
    alone = effect.sign() * (effect.abs() - rival).clamp(min=0)
    return alone, effect, boxes.gather(1, best[..., None].expand(-1, -1, 4))


def _repeated(boxes: Tensor) -> Tensor:
    """(N, P) bool: the same box stands earlier in the list."""
    same = (boxes[:, :, None] == boxes[:, None]).all(dim=3)
    return same.tril(-1).any(dim=2)


def _rival(effects: Tensor, best: Tensor, boxes: Tensor) -> Tensor:
    """(N, K) >= 0: the largest effect, in the direction of the best one, of a box that does not
    touch the best one."""
    x, y, w, h = (boxes[..., i] for i in range(4))  # (N, P)
    apart_x = (x[:, :, None] > (x + w)[:, None]) | (x[:, None] > (x + w)[:, :, None])
    apart_y = (y[:, :, None] > (y + h)[:, None]) | (y[:, None] > (y + h)[:, :, None])
    apart = (apart_x | apart_y).float()  # (N, P, P)
    allowed = apart.gather(1, best[..., None].expand(-1, -1, apart.shape[2]))  # (N, K, P)
    sign = effects.gather(1, best[:, None]).sign()
    return (effects * sign * allowed.transpose(1, 2)).amax(dim=1).clamp(min=0)


def _propose(
    victim: Victim, grey: Tensor, disagreement: Tensor, settings: PatchTest
) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, K), and for each scale the boxes (N, P, 4) whose structure moves a finding most,
    to first order."""
    image = grey.detach().requires_grad_(True)
    logits = victim.logits(image)
    structure = (grey - median_filter(grey, 5)).detach()
    chosen = disagreement.to(grey.device).topk(min(settings.findings, logits.shape[1])).indices
    maps = [
        victim.gradient(logits.gather(1, chosen[:, i : i + 1]).sum(), image) * structure
        for i in range(chosen.shape[1])
    ]
    boxes = [
        torch.cat([_peaks(attribution, scale, settings.regions) for attribution in maps], dim=1)
        for scale in settings.scales
    ]
    return logits.detach(), boxes


def _peaks(attribution: Tensor, scale: int, count: int) -> Tensor:
    """The `count` boxes of side `scale`, apart from each other, with the largest absolute sum:
    (N, count, 4)."""
    sums = avg_pool2d(attribution, scale, stride=1).abs()[:, 0]  # index = top left corner
    n, _, width = sums.shape
    found = []
    for _ in range(count):
        at = sums.flatten(1).argmax(dim=1)
        y, x = at // width, at % width
        side = torch.full_like(x, scale)
        found.append(torch.stack([x, y, side, side], dim=1))
        spot = torch.zeros_like(sums)
        spot[torch.arange(n), y, x] = 1.0
        near = max_pool2d(spot[:, None], 2 * scale + 1, stride=1, padding=scale)[:, 0]
        sums = sums.masked_fill(near > 0, -1.0)
    return torch.stack(found, dim=1)


def _repaired_logits(victim: Victim, grey: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Logits (N, P, K) with each box in turn replaced by `fill` (N, P or 1, H, W)."""
    n, count = boxes.shape[:2]
    size = grey.shape[-1]
    inside = _mask(boxes, size)
    repaired = torch.where(inside, fill, grey.expand(-1, count, -1, -1))
    return victim.logits(repaired.reshape(n * count, 1, size, size)).view(n, count, -1)


def _mask(boxes: Tensor, size: int) -> Tensor:
    """(N, P, size, size) bool of boxes (N, P, 4)."""
    line = torch.arange(size, device=boxes.device)
    x, y, w, h = (boxes[..., i, None] for i in range(4))
    columns = (line >= x) & (line < x + w)
    rows = (line >= y) & (line < y + h)
    return rows[..., :, None] & columns[..., None, :]


def _ring_fill(grey: Tensor, boxes: Tensor) -> Tensor:
    """(N, P, H, W): for each box the mean of the ring, 2 px wide, around it."""
    size = grey.shape[-1]
    grown = boxes.clone()
    grown[..., :2] -= 2
    grown[..., 2:] += 4
    ring = _mask(grown, size) & ~_mask(boxes, size)
    total = (grey * ring).sum(dim=(2, 3), keepdim=True)
    return (total / ring.sum(dim=(2, 3), keepdim=True)).expand(-1, -1, size, size)


def _weaker(a: Tensor, b: Tensor) -> Tensor:
    """Of two effects the smaller one, and 0 where they disagree in sign."""
    return torch.where(a * b > 0, torch.minimum(a.abs(), b.abs()) * a.sign(), torch.zeros_like(a))
