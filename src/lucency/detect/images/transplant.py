"""T2, the transplant test: does a region do to other films what it does to this one?

The region, with a margin of 2 px, is pasted on clean films on which the model says the opposite, at
its own place and at other places; beside it, a patch of the same size from another clean film, so
that the edges of a paste do not count. A trigger is a key that fits every film; a rib's edge or a
real nodule of a few pixels is not. A trigger made for one film alone does not transfer either:
then the region stays suspicious, and is called not transferable. SentiNet (Chou et al. 2020, arXiv
1812.00292) at the scale of a patch, and per finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.records import Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

MARGIN = 2
PLACES = 3
BATCH = 64


@dataclass(frozen=True)
class Donors:
    """Clean films to paste on. images (D, size, size); logits (D, K); spread (K,): standard
    deviation of each finding's clean logits."""

    images: NetworkInputs
    logits: Float64Array
    spread: Float64Array


@dataclass(frozen=True)
class Transplant:
    """Mean change of the finding's logit on the donors, in standard deviations of its clean
    logits, positive = in the direction in which the region moved the suspect.

    same_place, elsewhere: with the region pasted; control: with a clean patch in its place.
    """

    n_donors: int
    same_place: float
    elsewhere: float
    control: float

    @property
    def transfers(self) -> bool:
        """Whether the region moves other films, and a clean patch does not: by one standard
        deviation more."""
        return max(self.same_place, self.elsewhere) - max(self.control, 0.0) >= 1.0


def transplant(
    victim: Victim,
    image: NetworkInputs,
    box: IntArray,
    finding: int,
    *,
    raises: bool,
    donors: Donors,
    n_donors: int = 16,
    seed: int = 0,
) -> Transplant:
    """image (size, size), box (4,) of the region, network pixels. (2 + 3) × n_donors forwards.

    raises: the region raises the finding (else it lowers it); donors are those among the clean
    films on which the finding stands lowest (highest).
    """
    generator = np.random.default_rng([seed, 0x72])
    sign = 1.0 if raises else -1.0
    order = np.argsort(sign * donors.logits[:, finding], kind="stable")
    half = order[: max(1, (len(order) + 1) // 2)]
    chosen = np.sort(generator.permutation(half)[:n_donors])
    strangers = generator.permutation(len(donors.images))[: len(chosen)]
    size = image.shape[-1]
    x0, y0 = (max(0, int(v) - MARGIN) for v in box[:2])
    x1, y1 = (min(size, int(v) + int(s) + MARGIN) for v, s in zip(box[:2], box[2:], strict=True))
    w, h = x1 - x0, y1 - y0
    films = to_grey(donors.images[chosen], victim.device)
    key = to_grey(image[None], victim.device)[0, 0, y0:y1, x0:x1]
    others = to_grey(donors.images[strangers], victim.device)[:, 0, y0:y1, x0:x1]
    places = generator.integers(0, [size - w + 1, size - h + 1], (PLACES, 2))
    pasted = [_paste(films, key, x0, y0), _paste(films, others, x0, y0)]
    pasted += [_paste(films, key, int(x), int(y)) for x, y in places]
    with torch.inference_mode(), frozen(victim.network):
        flat = torch.cat(pasted)
        logits = torch.cat([victim.logits(part) for part in torch.split(flat, BATCH)])[:, finding]
    moved = logits.double().cpu().numpy().reshape(len(pasted), -1) - donors.logits[chosen, finding]
    mean = sign * moved.mean(axis=1) / donors.spread[finding]
    return Transplant(len(chosen), float(mean[0]), float(mean[2:].mean()), float(mean[1]))


def _paste(films: Tensor, patch: Tensor, x: int, y: int) -> Tensor:
    """films (D, 1, H, W) with patch (h, w) or (D, h, w) at x, y."""
    copies = films.clone()
    height, width = patch.shape[-2:]
    copies[:, 0, y : y + height, x : x + width] = patch
    return copies
