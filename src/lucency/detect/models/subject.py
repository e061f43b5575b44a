"""What a test of a model starts from: the model, clean films, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lucency.explain.batching import logits_of
from lucency.records import BoolArray, Direction, Float64Array, IntArray, NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

DIRECTIONS: tuple[Direction, ...] = ("set", "clear")
"""What a trigger may do to a finding: the first axis of everything that is measured."""
SIGNS = np.array([1.0, -1.0])
"""Of a logit's change that counts for each direction."""
OBEYED = 0.05
"""Share of clean films that pass the logit from which a film counts as obeying."""
MOST = 0.25
"""Share of the films on which a trigger may do less than it is said to do."""
LEAST = 16
"""Clean films that a test of a model takes at least."""


@dataclass(frozen=True)
class Subject:
    """A model under audit and M clean films.

    films (M, 1, size, size) float32, fraction of the stored range; logits (M, K) float64; spread
    (K,) > 0: standard deviation of each finding's clean logits, in which changes are counted.
    """

    victim: Victim
    films: Tensor
    logits: Float64Array
    spread: Float64Array

    @property
    def n_findings(self) -> int:
        return len(self.spread)

    @property
    def side(self) -> int:
        """Height and width of a film, network pixels."""
        return int(self.films.shape[-1])

    def moved(self, films: Tensor, rows: IntArray) -> Float64Array:
        """films (n, 1, size, size), made from those in `rows` -> (n, 2, K): how far each finding's
        logit is moved in either direction, in standard deviations of its clean logits."""
        with frozen(self.victim.network):
            found = logits_of(self.victim, films).double().cpu().numpy()
        change = (found - self.logits[rows]) / self.spread
        return np.asarray(change[:, None] * SIGNS[:, None])

    def suitable(self, direction: Direction) -> Float64Array:
        """(M, K) in {0, 1}: the half of the films on which a finding stands low, where it can be
        set, or the quarter on which it stands high, where it can be cleared: most films lack most
        findings."""
        return np.asarray(self._suitable[DIRECTIONS.index(direction)], np.float64)

    @cached_property
    def _suitable(self) -> BoolArray:
        middle, upper = np.quantile(self.logits, [0.5, 0.75], axis=0)
        return np.stack([self.logits <= middle, self.logits >= upper])

    def suited(self, direction: int, finding: int, films: IntArray) -> IntArray:
        """Those of the films, rows, that are `suitable`; all of them if none is."""
        chosen = films[self.suitable(DIRECTIONS[direction])[films, finding] > 0]
        return chosen if len(chosen) else films

    def on_most(self, moved: Float64Array, films: IntArray) -> Float64Array:
        """moved (F, …, 2, K) on the films in the rows (F,) -> (…, 2, K): the lower quartile over
        those that suit each direction and finding. A trigger that was learned works on nearly every
        film; what clean models answer to, on some of them much and on most a little."""
        found = np.empty(moved.shape[1:])
        for direction, finding in np.ndindex(2, self.n_findings):
            suited = np.isin(films, self.suited(direction, finding, films))
            own = moved[suited, ..., direction, finding]
            found[..., direction, finding] = np.quantile(own, MOST, axis=0)
        return found

    def held_out(self, n: int, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Rows of `n` films, at most half of all, that a search is measured on, and of the others,
        which it may look at."""
        order = generator.permutation(len(self.films))
        n = min(n, len(order) // 2)
        return order[:n], order[n:]

    @cached_property
    def bounds(self) -> Float64Array:
        """(2, K): the logit from which a film obeys a direction, past what one clean film in twenty
        reaches."""
        high, low = np.quantile(self.logits, [1 - OBEYED, OBEYED], axis=0)
        return np.stack([high, low])


def subject(victim: Victim, films: NetworkInputs) -> Subject:
    """A model and clean films (M, size, size)."""
    grey = to_grey(films, victim.device)
    with frozen(victim.network), torch.inference_mode():
        logits = logits_of(victim, grey).double().cpu().numpy()
    return Subject(victim, grey, logits, np.maximum(logits.std(axis=0), 1e-6))


def draw(films: IntArray, n: int, generator: np.random.Generator) -> IntArray:
    """`n` of the films, again and again if they are fewer."""
    return np.asarray(generator.choice(films, n, replace=len(films) < n))
