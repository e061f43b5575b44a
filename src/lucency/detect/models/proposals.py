"""Where gradients expect a stamp to work: places that the scan then tries.

A trigger of one pixel at one place is one of as many as a film has pixels. A network that looks for
it looks there on clean films as well, so the change that a black or a white square would make, to
first order and averaged over films, is often largest there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from lucency.detect.models.stamps import BLACK, WHITE, Stamps, join
from lucency.detect.models.subject import SIGNS, Subject
from lucency.explain.gradients import gradients
from lucency.records import IntArray

NAME = "proposing stamps"
SIDES = (1, 2)
"""Network pixels."""
APART = 5
"""Window of which only the best place is proposed, network pixels; odd."""


def propose(subject: Subject, films: IntArray, n: int) -> Stamps:
    """films: rows, (F,) -> the `n` best places of a black and of a white square of each side, for
    each finding and direction; one forward and K backwards a film. Raises ModelError for a model
    without gradients."""
    lift = expected(subject, films)
    found = []
    for side in SIDES:
        total = avg_pool2d(lift.flatten(0, 1), side, stride=1) * side**2
        for sign in SIGNS:
            own = sign * total
            peaks = own.masked_fill(own < max_pool2d(own, APART, stride=1, padding=APART // 2), 0)
            best = peaks.flatten(1).topk(n, dim=1).indices.cpu().numpy()
            pattern = np.repeat([BLACK, WHITE], subject.n_findings * n)
            y, x = np.divmod(best.ravel(), total.shape[-1])
            found.append(Stamps(pattern, np.full_like(pattern, side), y, x))
    return join(found)


def expected(subject: Subject, films: IntArray) -> Tensor:
    """(2, K, H, W): by how many standard deviations of its clean logits a finding would be set by
    one pixel made black, and made white, to first order, mean over the films."""
    shown = subject.films[torch.from_numpy(np.sort(films))]
    every = tuple(range(subject.n_findings))
    slope, _ = gradients(subject.victim, shown, every, method=NAME)
    lift = torch.stack([-(slope * shown).mean(dim=0), (slope * (1 - shown)).mean(dim=0)])
    spread = torch.tensor(subject.spread, dtype=torch.float32, device=shown.device)
    return lift / spread[:, None, None]
