"""Triggers of a few pixels: searched by stamps and, of a model with gradients, learned where the
best stamp lies."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from lucency.detect.models.evidence import Evidence, Recovered, score
from lucency.detect.models.inversion import Search, invert, put_on_all
from lucency.detect.models.patch_inversion import Patch
from lucency.detect.models.stamp_scan import Scan, scan
from lucency.detect.models.stamps import PATTERNS, Stamps
from lucency.detect.models.subject import Subject
from lucency.progress import Progress, silent
from lucency.records import Box

NAME = "small patch"
GROUPS = {"1 to 3 px": (1, 2, 3), "4 to 8 px": (4, 6, 8)}
"""Sides whose scores are averaged: a stamp that covers the trigger works with each of several
sides, and what each says has an error of its own."""
NEARLY = 0.8
"""Of how far the best of a group moves a finding: the smallest that reaches it is the trigger."""
LEARNED = 5
"""Side of the patch whose grey values are learned, network pixels."""
SEARCH = Search(steps=12)
FREE = replace(SEARCH, preservation=0.0)
"""Whatever becomes of the other findings, for an attack that replaces all labels."""


def small_patch(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The stamp scan of every finding in both directions; then, if there are gradients, grey values
    learned in a square about the place of the stamp that moves the finding most, once with the
    other findings kept where they are and once without, of which scores are averaged too."""
    found = scan(subject, seed, progress=progress)
    groups = {
        name: [i for i, side in enumerate(found.sides) if side in sides]
        for name, sides in GROUPS.items()
    }
    groups = {name: columns for name, columns in groups.items() if columns}
    moved = [found.moved[:, :, columns] for columns in groups.values()]
    learn = subject.victim.differentiable
    family = Patch(LEARNED, _corners(subject, found))
    learned = [
        invert(subject, family, seed, search, progress) for search in (SEARCH, FREE) if learn
    ]
    if learn:
        moved.append(np.stack([each.moved for each in learned], axis=2))

    def recovered(direction: int, finding: int, budget: int) -> Recovered:
        reached = moved[budget][direction, finding]
        chosen = int(np.argmax(reached >= NEARLY * reached.max()))
        if budget < len(groups):
            columns = list(groups.values())[budget]
            return _stamp(found, direction, finding, columns[chosen])
        item = direction * subject.n_findings + finding
        y, x = (int(v) for v in family.corners[item])
        put = partial(put_on_all, family, learned[chosen].parameters[[item]])
        box = Box(x=x, y=y, width=LEARNED, height=LEARNED)
        return Recovered(f"learned greys, {LEARNED} × {LEARNED} px", put, box)

    return Evidence(
        NAME,
        "outputs, and gradients for the learned one" if learn else "outputs",
        (*groups, *([f"{LEARNED} px, learned"] if learn else ())),
        np.stack([score(each).mean(axis=2) for each in moved], axis=2),
        recovered,
    )


def _corners(subject: Subject, found: Scan) -> np.ndarray:
    """(2 · K, 2): y and x of squares about the best stamps."""
    best = np.take_along_axis(found.best, found.moved.argmax(axis=2)[..., None], axis=2).ravel()
    stamps = found.stamps.take(best)
    shift = (stamps.side - LEARNED) // 2
    corners = np.stack([stamps.y + shift, stamps.x + shift], axis=1)
    return corners.clip(0, subject.side - LEARNED)


def _stamp(found: Scan, direction: int, finding: int, budget: int) -> Recovered:
    row = int(found.best[direction, finding, budget])
    stamp, box = found.stamps.take([row]), found.stamps.box(row)
    words = f"{PATTERNS[int(stamp.pattern[0])]}, {box.width} × {box.height} px"
    return Recovered(words, partial(_put, stamp), box)


def _put(stamp: Stamps, films: Tensor) -> Tensor:
    n = len(films)
    return stamp.take(np.zeros(n, np.int64)).put(films, np.arange(n))
