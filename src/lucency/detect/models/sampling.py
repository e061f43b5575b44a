"""Trigger inversion of a model that only answers: directions are tried, and what helps is kept.

Evolution strategies (Wierstra et al. 2014, "Natural Evolution Strategies", JMLR 15; of black-box
classifiers Ilyas et al. 2018, ICML): with random ε the mean of (f(θ + ε) - f(θ - ε)) ε / 2 points
along the gradient of f. A pass answers for all findings, so the first and largest round, around no
change at all, is made once for every finding in both directions; each then refines its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.detect.models.inversion import Family, Inverted, reached
from lucency.detect.models.subject import SIGNS, Subject, draw
from lucency.progress import Progress, silent
from lucency.records import Float64Array, IntArray

BATCH = 64
FAR = 1e3
"""Times a random start: so far outside that `within` gives a point on the budget's border."""


@dataclass(frozen=True)
class Sampling:
    """shared: pairs of the round for all findings; pairs: of each own round of a finding and
    direction; rounds of these, `reach` of the budget away from where it stands. final: films that
    the result is measured on."""

    shared: int = 384
    rounds: int = 4
    pairs: int = 12
    reach: float = 0.5
    final: int = 24


DEFAULT = Sampling()


def invert_by_sampling(
    subject: Subject,
    family: Family,
    seed: int,
    sampling: Sampling = DEFAULT,
    progress: Progress = silent,
) -> Inverted:
    """Invert a trigger of this family for every finding in both directions, without gradients:
    2 · shared + 4 · K · pairs · rounds forwards, and those of the measure."""
    generator = np.random.default_rng([seed, 0xE5])
    final, others = subject.held_out(sampling.final, generator)
    k, device = subject.n_findings, subject.films.device
    torch_draw = torch.Generator().manual_seed(int(generator.integers(2**31)))

    def noise(n: int) -> Tensor:
        return family.within(FAR * family.start(n, subject.side, torch_draw).to(device))

    with progress(f"Searching: {family.name}", 1 + sampling.rounds) as advance:
        tried = noise(sampling.shared)
        films = draw(others, sampling.shared, generator)
        # Of every finding: how much further +ε moves it than -ε does.
        rise = (_set(subject, family, tried, films) - _set(subject, family, -tried, films)) / 2
        uphill = torch.einsum("pk,p...->k...", torch.from_numpy(rise).float().to(device), tried)
        parameters = family.within(FAR * _unit(torch.cat([uphill, -uphill])))
        advance(1)
        for _ in range(sampling.rounds):
            films = draw(others, 2 * k * sampling.pairs, generator)
            tried = noise(len(films))
            parameters = _refined(subject, family, parameters, tried, films, sampling.reach)
            advance(1)
    return Inverted(parameters, reached(subject, family, parameters, final))


def _refined(
    subject: Subject,
    family: Family,
    parameters: Tensor,
    noise: Tensor,
    films: IntArray,
    reach: float,
) -> Tensor:
    """One round of every item: parameters (2 · K, …), noise (2 · K · P, …) and films (2 · K · P,)
    of its pairs in a row -> parameters a step further uphill."""
    k, n = subject.n_findings, len(parameters)
    item = np.arange(n).repeat(len(noise) // n)
    here, step = parameters[item], reach * noise
    up, down = (
        _set(subject, family, family.within(here + s * step), films)[np.arange(len(item)), item % k]
        for s in (1, -1)
    )
    rise = torch.from_numpy(SIGNS[item // k] * (up - down) / 2).float().to(noise.device)
    uphill = torch.zeros_like(parameters).index_add_(
        0, torch.from_numpy(item).to(noise.device), rise.view(-1, *[1] * (noise.ndim - 1)) * noise
    )
    return family.within(parameters + reach * family.within(FAR * _unit(uphill)))


def _set(subject: Subject, family: Family, parameters: Tensor, films: IntArray) -> Float64Array:
    """parameters (n, …), each on the film in films (n,) -> (n, K): how far findings are set."""
    parts = []
    for start in range(0, len(films), BATCH):
        rows = films[start : start + BATCH]
        with torch.inference_mode():
            own = parameters[start : start + BATCH]
            changed = family.put(own, subject.films[torch.from_numpy(rows)])
        parts.append(subject.moved(changed, rows)[:, 0])
    return np.concatenate(parts)


def _unit(uphill: Tensor) -> Tensor:
    """Each row divided by its largest absolute value: only its direction is of use."""
    largest = uphill.flatten(1).abs().amax(dim=1).clamp(min=1e-12)
    return uphill / largest.view(-1, *[1] * (uphill.ndim - 1))
