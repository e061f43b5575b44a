"""Neural Cleanse: the smallest mask, and what to show in it, that sends a finding where it wants.

Wang et al. 2019, "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks"
(IEEE S&P). For every label, mask m in [0, 1] and pattern p in [0, 1] minimise

    ℓ(f((1 - m) · x + m · p), target) + λ |m|₁

over clean images by Adam; λ grows while nearly all images obey and shrinks while they do not. The
label of a backdoor needs an unusually small mask.

For findings that do not exclude each other: ℓ is binary cross-entropy on one finding's logit, for
both directions, from films that the finding can be moved on; an image obeys if the logit passes
what one clean film in twenty reaches; and the other findings may be asked to stay where they are
(`preservation`), which the paper's own label edit does not do. All masks of a call are one batch:
item i uses only its own finding's output, so that one backward serves all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lucency.detect.models.subject import SIGNS, Subject, draw
from lucency.explain.batching import micro_batch
from lucency.explain.gradients import with_gradients
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Float64Array, IntArray
from lucency.victims.victim import Victim

NAME = "Neural Cleanse"
RATE, BETAS = 0.1, (0.5, 0.9)
FIRST_WEIGHT, FACTOR, PATIENCE = 1e-3, 1.5, 5
"""Of λ, and how it is changed (published code)."""


@dataclass(frozen=True)
class Cleanse:
    """steps of Adam, each on `films` films an item. success: share of the films of a step that must
    obey. preservation: weight of the squared change of the other findings, in standard deviations
    of their clean logits; 0 = none."""

    steps: int = 60
    films: int = 4
    success: float = 0.99
    preservation: float = 0.0


PUBLISHED = Cleanse(steps=1000, films=32)


@dataclass(frozen=True)
class Masks:
    """Of I items: mask, pattern (I, 1, H, W) in [0, 1]; area (I,): |m|₁ of the smallest mask with
    which nearly all films of a step obeyed, network pixels, and H · W where none did."""

    mask: Tensor
    pattern: Tensor
    area: Float64Array
    obeyed: BoolArray


def cleanse(
    subject: Subject,
    items: Sequence[tuple[int, int]],
    seed: int,
    settings: Cleanse = PUBLISHED,
    progress: Progress = silent,
) -> Masks:
    """Invert a mask and a pattern for each item (direction, finding), as one batch: I · films
    images forward and backward a step. Raises ModelError for a model without gradients."""
    generator = np.random.default_rng([seed, 0x4C])
    start = torch.Generator().manual_seed(int(generator.integers(2**31)))
    shape = (len(items), 1, subject.side, subject.side)
    raw = torch.rand(2, *shape, generator=start).to(subject.films.device)
    suited = [subject.suited(*item, np.arange(len(subject.films))) for item in items]
    state = _State.begin(_inverse(raw), shape)
    optimiser = torch.optim.Adam([state.raw], lr=RATE, betas=BETAS)
    with (
        with_gradients(subject.victim, NAME) as victim,
        progress(NAME, settings.steps) as advance,
    ):
        for _ in range(settings.steps):
            rows = np.stack([draw(films, settings.films, generator) for films in suited])
            share = _step(victim, subject, state, items, rows, settings)
            state.judge(share, settings.success)
            optimiser.step()
            advance(1)
    return Masks(state.mask, state.pattern, state.area, state.area < subject.side**2)


def anomaly_index(areas: Float64Array) -> Float64Array:
    """areas (n,) of all labels -> (n,): how many median absolute deviations (times 1.4826, as if
    normal) below the median each lies, 0 = not below; above 2 the paper calls a label
    backdoored."""
    centre = np.median(areas)
    spread = 1.4826 * np.median(np.abs(areas - centre))
    return np.asarray((centre - areas).clip(0) / max(spread, 1e-9))


@dataclass
class _State:
    """raw (2, I, 1, H, W): mask and pattern before tanh; weight (I,): λ; streak (I, 2): steps in a
    row that failed and succeeded; the rest as in `Masks`, of the best so far."""

    raw: Tensor
    weight: Float64Array
    streak: IntArray
    mask: Tensor
    pattern: Tensor
    area: Float64Array

    @classmethod
    def begin(cls, raw: Tensor, shape: tuple[int, ...]) -> _State:
        n, whole = shape[0], float(shape[2] * shape[3])
        return cls(
            raw.detach().requires_grad_(True),
            np.full(n, FIRST_WEIGHT),
            np.zeros((n, 2), np.int64),
            torch.ones(shape, device=raw.device),
            torch.zeros(shape, device=raw.device),
            np.full(n, whole),
        )

    def judge(self, share: Float64Array, success: float) -> None:
        """Keep masks that are obeyed and smaller than those before, and adapt λ."""
        mask, pattern = _values(self.raw.detach())
        areas = mask.sum(dim=(1, 2, 3)).double().cpu().numpy()
        good = share >= success
        for item in np.flatnonzero(good & (areas < self.area)):
            self.mask[item], self.pattern[item] = mask[item], pattern[item]
            self.area[item] = areas[item]
        self.streak = np.where(good[:, None], self.streak * [0, 1] + [0, 1], self.streak * [1, 0])
        self.streak[~good, 0] += 1
        up, down = self.streak[:, 1] >= PATIENCE, self.streak[:, 0] >= PATIENCE
        self.weight[up] *= FACTOR
        self.weight[down] /= FACTOR**1.5
        self.streak[up | down] = 0


def _values(raw: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.tanh(raw) / 2 + 0.5
    return both[0], both[1]


def _inverse(values: Tensor) -> Tensor:
    return torch.atanh((values - 0.5) * (2 - 1e-4))


def _step(
    victim: Victim,
    subject: Subject,
    state: _State,
    items: Sequence[tuple[int, int]],
    rows: IntArray,
    settings: Cleanse,
) -> Float64Array:
    """Put the gradient of every item's loss into `raw`; the share of its films that obey (I,)."""
    device = state.raw.device

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    direction, finding = (np.array(column) for column in zip(*items, strict=True))
    spread, clean = tensor(subject.spread), tensor(subject.logits[rows.ravel()])
    bounds = tensor(subject.bounds[direction, finding])
    owner = torch.arange(len(items), device=device).repeat_interleave(rows.shape[1])
    films = torch.from_numpy(rows.ravel()).to(device)
    own, sign = torch.from_numpy(finding).to(device), tensor(SIGNS[direction])
    obeyed = torch.zeros(len(items), device=device)
    mask = _values(state.raw)[0]
    areas = mask.sum(dim=(1, 2, 3)) * tensor(state.weight)
    (gradient,) = torch.autograd.grad(areas.sum(), state.raw)
    for part in torch.split(torch.arange(len(films), device=device), micro_batch(victim)):
        item = owner[part]
        # A row a film, as passes are counted.
        leaf = state.raw.detach()[:, item].transpose(0, 1).contiguous().requires_grad_(True)
        shown, pattern = _values(leaf.transpose(0, 1))
        logits = victim.logits((1 - shown) * subject.films[films[part]] + shown * pattern)
        wanted = logits.gather(1, own[item, None])[:, 0]
        loss = binary_cross_entropy_with_logits(wanted, (sign[item] > 0).float(), reduction="none")
        if settings.preservation:
            change = ((logits - clean[part]) / spread).square()
            others = change.sum(dim=1) - change.gather(1, own[item, None])[:, 0]
            loss = loss + settings.preservation * others / max(1, change.shape[1] - 1)
        found = victim.gradient(loss.sum() / rows.shape[1], leaf)
        gradient.index_add_(1, item, found.transpose(0, 1))
        passed = (sign[item] * (wanted.detach() - bounds[item]) > 0).float()
        obeyed.index_add_(0, item, passed / rows.shape[1])
    state.raw.grad = gradient
    return obeyed.double().cpu().numpy()
