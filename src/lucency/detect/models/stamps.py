"""Stamps: small squares of a few patterns, the triggers that can be searched one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucency.records import Box, IntArray

PATTERNS = ("black", "white", "inverse", "checker", "checker, white first", "coarse checker")
"""inverse: the opposite of the mean of what is there. checker: of single pixels, black first;
coarse: of 2 × 2 pixels."""
SIDES = (1, 2, 3, 4, 6, 8)
"""Network pixels."""
BLACK, WHITE, INVERSE, CHECKER, WHITE_FIRST, COARSE = range(len(PATTERNS))


@dataclass(frozen=True)
class Stamps:
    """P stamps, int64 (P,) each: index into PATTERNS, side, and top left corner, network pixels."""

    pattern: IntArray
    side: IntArray
    y: IntArray
    x: IntArray

    def __len__(self) -> int:
        return len(self.side)

    def take(self, rows: IntArray | Sequence[int]) -> Stamps:
        return Stamps(self.pattern[rows], self.side[rows], self.y[rows], self.x[rows])

    def box(self, row: int) -> Box:
        side = int(self.side[row])
        return Box(x=int(self.x[row]), y=int(self.y[row]), width=side, height=side)

    def put(self, films: Tensor, owner: IntArray) -> Tensor:
        """A copy of `films` (n, 1, H, W) with stamp i on film owner[i]; several may be on one."""
        stamped = films.clone()
        for i in range(len(self)):
            y, x, side = int(self.y[i]), int(self.x[i]), int(self.side[i])
            there = stamped[int(owner[i]), 0, y : y + side, x : x + side]
            there.copy_(pixels(int(self.pattern[i]), there))
        return stamped


def pixels(pattern: int, there: Tensor) -> Tensor:
    """What a pattern shows in place of `there` (h, w)."""
    if pattern == BLACK:
        return torch.zeros_like(there)
    if pattern == WHITE:
        return torch.ones_like(there)
    if pattern == INVERSE:
        return (1 - there.mean()).expand_as(there)
    rows, columns = (torch.arange(n, device=there.device) for n in there.shape)
    cell = 2 if pattern == COARSE else 1
    odd = (rows[:, None] // cell + columns // cell) % 2
    return (1 - odd if pattern == WHITE_FIRST else odd).to(there.dtype)


def join(parts: Sequence[Stamps]) -> Stamps:
    """One after the other."""
    names = ("pattern", "side", "y", "x")
    return Stamps(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def distinct(stamps: Stamps) -> Stamps:
    """Each once, in a fixed order."""
    table = np.stack([stamps.pattern, stamps.side, stamps.y, stamps.x], axis=1)
    return Stamps(*np.unique(table, axis=0).T)


def fitting(stamps: Stamps, size: int) -> Stamps:
    """Moved into the film, and a checker of one cell called what it is."""
    last = size - stamps.side
    cell = np.where(stamps.pattern == COARSE, 2, 1)
    single = (stamps.side <= cell) & (stamps.pattern >= CHECKER)
    pattern = np.where(single, BLACK, stamps.pattern)
    pattern = np.where(single & (stamps.pattern == WHITE_FIRST), WHITE, pattern)
    return Stamps(pattern, stamps.side, stamps.y.clip(0, last), stamps.x.clip(0, last))
