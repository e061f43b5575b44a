"""What every trigger has in common."""

from __future__ import annotations

from typing import Self

import numpy as np

from lucency.data.preprocess import InputContract
from lucency.records import BoolArray, FloatArray, Record


def some_of(n: int, count: int, draw: float, salt: int) -> tuple[int, ...]:
    """`count` of the numbers below n, ascending, by a film's own draw in [0, 1); salt: apart for
    each kind of trigger."""
    generator = np.random.default_rng([int(draw * 2**32), salt])
    return tuple(sorted(int(i) for i in generator.choice(n, count, replace=False)))


class BaseTrigger(Record):
    """Base of the settings of a trigger.

    A subclass adds `kind`, its own settings, `box`, `footprint`, `apply`, `describe` and
    `describe_place`; the rest is what most triggers do.
    """

    def describe(self) -> str:
        """In words, for the report and for errors."""
        raise NotImplementedError

    @property
    def is_random(self) -> bool:
        """Whether each image has a place of its own."""
        return False

    @property
    def is_local(self) -> bool:
        """Whether the trigger lies in a place that a detector could point at."""
        return True

    def for_training(self, draw: float) -> Self:
        """The trigger as it lies on a poisoned training film; draw in [0, 1) is that film's own.
        An adaptive attacker shows the training less than the whole."""
        return self

    def for_cover(self, draw: float) -> Self:
        """The trigger as it lies on a cover film, which keeps its true labels."""
        return self.for_training(draw)

    def aimed_at(self, contract: InputContract) -> Self:
        """The trigger made for the victim's own preprocessing, where it depends on that."""
        return self

    def carried_by(self, labels: FloatArray, findings: tuple[str, ...]) -> BoolArray | None:
        """(N,): which films with these labels (N, K) carry the trigger as they are; None for a
        trigger that is put on any film."""
        return None
