"""Triggers of a few pixels: searched by stamps and, of a model with gradients, learned where the
best stamp lies."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from lucency.detect.models.evidence import Evidence, Recovered, put_on_all, score
from lucency.detect.models.inversion import Search, invert
from lucency.detect.models.patch_inversion import Patch
from lucency.detect.models.stamp_scan import Scan, scan
from lucency.detect.models.stamps import PATTERNS, Stamps
from lucency.detect.models.subject import Subject
from lucency.progress import Progress, silent
from lucency.records import Box

NAME = "small patch"
SIDE = 5
"""Of the patch whose grey values are learned, network pixels."""
SEARCH = Search(steps=12)
FREE = replace(SEARCH, preservation=0.0)
"""Whatever becomes of the other findings, for an attack that replaces all labels."""


def small_patch(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The stamp scan of every finding in both directions; then, if there are gradients, grey values
    learned in a square about the place of the stamp that moves the finding most."""
    found = scan(subject, seed, progress=progress)
    stamps = Evidence(
        NAME,
        "outputs",
        tuple(f"{side} px" for side in found.sides),
        score(found.moved),
        lambda direction, finding, budget: _stamp(found, direction, finding, budget),
    )
    if not subject.victim.differentiable:
        return stamps
    family = Patch(SIDE, _corners(subject, found))
    searches = (SEARCH, FREE)
    learned = [invert(subject, family, seed, search, progress) for search in searches]

    def recovered(direction: int, finding: int, budget: int) -> Recovered:
        if budget < len(found.sides):
            return _stamp(found, direction, finding, budget)
        item = direction * subject.n_findings + finding
        y, x = (int(v) for v in family.corners[item])
        box = Box(x=x, y=y, width=SIDE, height=SIDE)
        parameters = learned[budget - len(found.sides)].parameters
        put = partial(put_on_all, family.put, parameters[[item]])
        return Recovered(f"learned greys, {SIDE} × {SIDE} px", put, box)

    return Evidence(
        NAME,
        "outputs, and gradients for the learned ones",
        (*stamps.budgets, f"{SIDE} px, learned", f"{SIDE} px, learned, other findings free"),
        np.concatenate(
            [stamps.scores, *(score(each.moved)[..., None] for each in learned)], axis=2
        ),
        recovered,
    )


def _corners(subject: Subject, found: Scan) -> np.ndarray:
    """(2 · K, 2): y and x of squares about the best stamps."""
    best = np.take_along_axis(found.best, found.moved.argmax(axis=2)[..., None], axis=2).ravel()
    stamps = found.stamps.take(best)
    shift = (stamps.side - SIDE) // 2
    corners = np.stack([stamps.y + shift, stamps.x + shift], axis=1)
    return corners.clip(0, subject.side - SIDE)


def _stamp(found: Scan, direction: int, finding: int, budget: int) -> Recovered:
    row = int(found.best[direction, finding, budget])
    stamp, box = found.stamps.take([row]), found.stamps.box(row)
    words = f"{PATTERNS[int(stamp.pattern[0])]}, {box.width} × {box.height} px"
    return Recovered(words, partial(_put, stamp), box)


def _put(stamp: Stamps, films: Tensor) -> Tensor:
    n = len(films)
    return stamp.take(np.zeros(n, np.int64)).put(films, np.arange(n))
