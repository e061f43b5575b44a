"""Trigger inversion: the change of a film, within a budget, that moves a finding most.

All findings and both directions are one batch: item i uses only its own finding's output, so that
one forward and one backward serve all. Every item gets the same budget, the same number of steps
and as many films, and what it reaches is measured on films that took no part: how far a clean
model's findings can be moved by chance is then said by the other findings, or by other models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lucency.detect.models.subject import SIGNS, Subject, draw
from lucency.explain.batching import micro_batch
from lucency.explain.gradients import with_gradients
from lucency.progress import Progress, silent
from lucency.records import Float64Array, IntArray
from lucency.victims.victim import Victim


class Family(Protocol):
    """A kind of change with parameters (I, …), one row an item."""

    @property
    def name(self) -> str: ...

    @property
    def rate(self) -> float:
        """Adam's step, in the units of the parameters."""
        ...

    def start(self, n_items: int, side: int, generator: torch.Generator) -> Tensor:
        """Parameters (n_items, …) float32 for films of `side` pixels."""
        ...

    def within(self, parameters: Tensor) -> Tensor:
        """The nearest parameters within the budget."""
        ...

    def put(self, parameters: Tensor, films: Tensor) -> Tensor:
        """parameters (n, …), films (n, 1, H, W) in [0, 1] -> changed films, differentiable."""
        ...


@dataclass(frozen=True)
class Search:
    """steps of Adam, each on `films` films an item. enough: standard deviations of its clean logits
    beyond which a finding need not be moved. preservation: weight of keeping the other findings
    where they are, 0 = none. final: films that the result is measured on."""

    steps: int = 40
    films: int = 4
    enough: float = 6.0
    preservation: float = 0.02
    final: int = 24


DEFAULT = Search()


@dataclass(frozen=True)
class Inverted:
    """parameters (2 · K, …): of every direction and finding, set first. moved (2, K): mean change
    of the finding's logit on films that took no part, in standard deviations of its clean logits,
    in the direction's sign: larger = the trigger works better."""

    parameters: Tensor
    moved: Float64Array


def invert(
    subject: Subject,
    family: Family,
    seed: int,
    search: Search = DEFAULT,
    progress: Progress = silent,
) -> Inverted:
    """Invert a trigger of this family for every finding in both directions: 2 · K · films images
    forward and backward a step. Raises ModelError for a model without gradients."""
    generator = np.random.default_rng([seed, 0x1CE])
    final, others = subject.held_out(search.final, generator)
    k = subject.n_findings
    finding, sign = np.tile(np.arange(k), 2), np.repeat(SIGNS, k)
    suited = [subject.suited(*divmod(item, k), others) for item in range(2 * k)]
    device = subject.films.device
    start = torch.Generator().manual_seed(int(generator.integers(2**31)))
    parameters = family.within(family.start(2 * k, subject.side, start).to(device))
    parameters.requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], lr=family.rate)
    with (
        with_gradients(subject.victim, f"Inverting a {family.name}") as victim,
        progress(f"Inverting: {family.name}", search.steps) as advance,
    ):
        for _ in range(search.steps):
            rows = np.stack([draw(films, search.films, generator) for films in suited])
            _step(victim, subject, family, parameters, rows, finding, sign, search)
            optimiser.step()
            with torch.no_grad():
                parameters.copy_(family.within(parameters))
            advance(1)
    found = parameters.detach()
    return Inverted(found, reached(subject, family, found, final))


def put_on_all(family: Family, parameters: Tensor, films: Tensor) -> Tensor:
    """The family's change with one row of parameters (1, …), on every film."""
    return family.put(parameters.expand(len(films), *parameters.shape[1:]), films)


def reached(subject: Subject, family: Family, parameters: Tensor, films: IntArray) -> Float64Array:
    """parameters (2 · K, …) on the films in the rows (F,) that suit each -> (2, K), as in
    `Inverted`."""
    k = subject.n_findings
    moved = np.empty((2, k))
    for item in range(2 * k):
        direction, finding = divmod(item, k)
        rows = subject.suited(direction, finding, films)
        with torch.inference_mode():
            films_of = subject.films[torch.from_numpy(rows)]
            changed = put_on_all(family, parameters[item : item + 1], films_of)
        moved[direction, finding] = subject.moved(changed, rows)[:, direction, finding].mean()
    return moved


def _step(
    victim: Victim,
    subject: Subject,
    family: Family,
    parameters: Tensor,
    rows: IntArray,
    finding: IntArray,
    sign: Float64Array,
    search: Search,
) -> None:
    """Gradients of every item's loss by its parameters; rows (I, F) of its films."""
    device = parameters.device
    spread = torch.tensor(subject.spread, dtype=torch.float32, device=device)
    clean = torch.tensor(subject.logits, dtype=torch.float32, device=device)
    items = torch.arange(len(rows), device=device).repeat_interleave(rows.shape[1])
    films = torch.from_numpy(rows.ravel()).to(device)
    own = torch.from_numpy(finding).to(device)
    way = torch.tensor(sign, dtype=torch.float32, device=device)
    parameters.grad = torch.zeros_like(parameters)
    for part in torch.split(torch.arange(len(films), device=device), micro_batch(victim)):
        item, film = items[part], films[part]
        leaf = parameters.detach()[item].requires_grad_(True)
        change = (victim.logits(family.put(leaf, subject.films[film])) - clean[film]) / spread
        wanted = (change.gather(1, own[item, None])[:, 0] * way[item]).clamp(max=search.enough)
        loss = -wanted
        if search.preservation:
            others = change.square().sum(dim=1) - wanted.square()
            loss = loss + search.preservation * others / max(1, change.shape[1] - 1)
        gradient = victim.gradient(loss.sum(), leaf)
        parameters.grad.index_add_(0, item, gradient / rows.shape[1])
