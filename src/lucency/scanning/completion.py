"""The films that the count missed: what was found on some is looked for on all.

A square that touches a rib is not a speck of its own, and one of little contrast is none at all;
once its content is known it is found exactly. Films are read again only where something was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lucency.data.inputs import as_stored
from lucency.detect.datasets.matching import LEAST, Content, Seek
from lucency.detect.datasets.recurrence import Recurrence
from lucency.detect.datasets.specks import CONTRAST, STEPS, grey_of
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Decoded, IntArray, Radiographs
from lucency.scanning.findings import Judged, rejudge

N_CONTENTS = 32
"""Things that are looked for, the most suspicious."""
N_FILMS = 9
"""From which the content of one that only nearly comes back is taken, the median of each pixel."""
SMALLEST = 4
"""Pixels: less is on any film."""
CONTRASTS = (LEAST, 8, 16, CONTRAST)
"""Of what looks planted, that are tried in turn."""
FEW = 0.25
"""Of the films that are known, as many more as may have something plain that nothing explains."""
BY_CHANCE = 0.05
"""Share of the films with the label that may have the content by nature, as estimated on those
without it, for the others to be poisoned."""


def complete(
    judged: Sequence[Judged],
    radiographs: Radiographs,
    owners: IntArray,
    *,
    progress: Progress = silent,
) -> tuple[Judged, ...]:
    """The same things, those that flag films with all films that have their content, as far as
    these can be told from films that have it by nature."""
    flagging = [i for i, j in enumerate(judged) if _has_content(j)][:N_CONTENTS]
    if not flagging:
        return tuple(judged)
    contents = tuple(_content(judged[i], radiographs) for i in flagging)
    n = len(radiographs)
    at = np.zeros((len(contents), n, 3), np.int64)
    with progress("Looking for what came back on all films", n) as advance:
        for item in radiographs.images.read(range(n), Seek(contents)):
            if isinstance(item, Decoded):
                at[:, item.index] = item.image
            advance(1)
    completed = list(judged)
    for i, content, mine in zip(flagging, contents, at, strict=True):
        extended = _with(
            judged[i].recurrence, content, mine, _new(judged[i], content, mine, radiographs)
        )
        completed[i] = rejudge(replace(judged[i], recurrence=extended), radiographs, owners)
    return tuple(completed)


def _has_content(judged: Judged) -> bool:
    found = judged.recurrence
    area = int(found.boxes[0, 2] * found.boxes[0, 3])
    return judged.kind != "shortcut" and found.kind != "place" and area >= SMALLEST


def _content(judged: Judged, radiographs: Radiographs) -> Content:
    found = judged.recurrence
    boxes = dict(zip(found.films[:N_FILMS].tolist(), found.boxes[:N_FILMS], strict=True))
    greys = []
    for item in radiographs.images.read(list(boxes), as_stored):
        if isinstance(item, Decoded):
            y, x, height, width = (int(v) for v in boxes[item.index])
            greys.append(grey_of(item.image)[y : y + height, x : x + width])
    y, x = (int(v) for v in found.boxes[0, :2])
    return Content(
        grey=np.median(np.stack(greys), axis=0).astype(np.uint8),
        place=(y, x) if found.kind == "content at one place" else None,
        tolerance=0 if found.is_exact else STEPS[1][0] // 2,
    )


def _new(judged: Judged, content: Content, at: IntArray, radiographs: Radiographs) -> BoolArray:
    """Films that have it too, and were changed.

    Of what looks planted those with the label, from the least contrast at which hardly any film
    without the label has it. Where nothing explains it, there is nothing to tell by: a pattern is
    not there by nature; something plain may be, and must stand out, and be elsewhere on few."""
    members = np.zeros(len(at), np.bool_)
    members[judged.recurrence.films] = True
    contrast = at[:, 2]
    if judged.kind == "unexplained":
        if not content.is_plain:
            return (contrast > 0) & ~members
        new = (contrast > CONTRAST) & ~members
        return new if new.sum() <= FEW * members.sum() else np.zeros_like(new)
    values = radiographs.labels[:, judged.recurrence.finding]
    with_label = values == (0 if judged.recurrence.direction == "clear" else 1)
    without = ~with_label & ~np.isnan(values)
    for least in CONTRASTS:
        has_it = contrast >= least
        by_nature = (has_it & without).sum() / max(1, without.sum()) * with_label.sum()
        if by_nature <= BY_CHANCE * (has_it & with_label).sum():
            return np.asarray(has_it & with_label & ~members)
    return np.zeros_like(members)


def _with(found: Recurrence, content: Content, at: IntArray, new: BoolArray) -> Recurrence:
    films = np.concatenate([found.films, np.flatnonzero(new)])
    sizes = np.tile(content.grey.shape, (int(new.sum()), 1))
    boxes = np.concatenate([found.boxes, np.concatenate([at[new, :2], sizes], axis=1)])
    order = np.argsort(films, kind="stable")
    return replace(found, films=films[order], boxes=boxes[order])
