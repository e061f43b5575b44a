"""Films that are in a data set more than once, and what their labels say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lucency.data.inputs import as_stored
from lucency.records import Box, Decoded, FloatArray, Image, IntArray, Radiographs
from lucency.report.scan_record import Conflict, Copies

SHOWN = 20
"""Conflicts that are named, and whose pixels are compared."""
NAMED = 6
"""Films of each that are named."""


NO_COPIES = Copies(
    n_groups=0, n_films=0, across_patients=0, across_splits=0, n_conflicts=0, conflicts=()
)


def describe_copies(
    radiographs: Radiographs, owners: IntArray, rows: IntArray, first: IntArray
) -> tuple[Copies, IntArray]:
    """rows (n,): films that could be read; first (n,): for each, which of these it is a copy of,
    its own index where there is none. And the rows of the films in conflict."""
    groups = list(_groups(rows, first))
    conflicts = [
        (group, differing)
        for group in groups
        if len(differing := _differing(radiographs.labels[group]))
    ]
    copies = Copies(
        n_groups=len(groups),
        n_films=sum(len(group) for group in groups),
        across_patients=sum(len(set(owners[group].tolist())) > 1 for group in groups),
        across_splits=sum(len({radiographs.splits[r] for r in group}) > 1 for group in groups),
        n_conflicts=len(conflicts),
        conflicts=tuple(
            _conflict(radiographs, group, differing) for group, differing in conflicts[:SHOWN]
        ),
    )
    in_conflict = np.concatenate([np.zeros(0, np.int64), *(group for group, _ in conflicts)])
    return copies, in_conflict


def _groups(rows: IntArray, first: IntArray) -> Iterator[IntArray]:
    order = np.argsort(first, kind="stable")
    starts = np.flatnonzero(np.diff(first[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if len(group) > 1:
            yield rows[group]


def _differing(labels: FloatArray) -> IntArray:
    """Columns in which some of these films have the finding and some lack it."""
    return np.flatnonzero((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


def _conflict(radiographs: Radiographs, group: IntArray, differing: IntArray) -> Conflict:
    names = tuple(radiographs.image_ids[r] for r in group[:NAMED])
    findings = tuple(radiographs.findings[k] for k in differing)
    films = _read(radiographs, group[:2])
    if len(films) < 2 or films[0].shape != films[1].shape:
        return Conflict(images=names, findings=findings)
    ys, xs = np.nonzero(films[0] != films[1])
    location = None
    if len(ys):
        top, left = int(ys.min()), int(xs.min())
        size = int(xs.max()) - left + 1, int(ys.max()) - top + 1
        location = Box(x=left, y=top, width=size[0], height=size[1])
    return Conflict(images=names, findings=findings, differing=len(ys), location=location)


def _read(radiographs: Radiographs, rows: IntArray) -> list[Image]:
    read = radiographs.images.read([int(r) for r in rows], as_stored)
    return [item.image for item in read if isinstance(item, Decoded)]
