"""The clean reference set: one film a patient, how many are enough, and copies among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage

from lucency.data.preprocess import full_scale
from lucency.errors import DataError
from lucency.records import Float64Array, IntArray, NetworkInputs

# Below this, a threshold of 5 % cannot be reached and scales are guesses.
FEW = 40
SMALLEST = 8
# A group of films (a view) with fewer calibration films shares everyone's.
GROUP = 60

THUMBNAIL = 24
# Two films are copies if hardly a cell of their thumbnails differs by more than this, grey levels
# of 255: a stamp of a few pixels changes one cell, another film of the same patient nearly all.
SAME = 1.5
DIFFERENT_CELLS = 0.02


def one_film_a_patient(patient_ids: Sequence[str], seed: int) -> IntArray:
    """Rows in random order, the first of each patient only: several films of a patient are not
    exchangeable with a stranger's."""
    order = np.random.default_rng([seed, 0xCA1]).permutation(len(patient_ids))
    seen: set[str] = set()
    chosen = []
    for row in order:
        if patient_ids[row] not in seen:
            seen.add(patient_ids[row])
            chosen.append(row)
    return np.array(chosen, dtype=np.int64)


def require_patients(n: int) -> None:
    """Raises DataError unless a clean reference set of `n` patients is large enough."""
    if n < SMALLEST:
        raise DataError(
            f"The clean reference set must have films of at least {SMALLEST} patients, got {n}; "
            "give more trusted images."
        )


@dataclass(frozen=True)
class Groups:
    """Which calibration films a p-value is read against. names: the groups with films enough;
    members (n,): the group of each calibration film, None = none of its own."""

    names: tuple[str, ...]
    members: tuple[str | None, ...]


def group_by_view(views: Sequence[str | None]) -> Groups:
    """A group for each view with at least `GROUP` calibration films; the others are read against
    all films."""
    counts = {view: list(views).count(view) for view in dict.fromkeys(views) if view is not None}
    names = tuple(sorted(view for view, count in counts.items() if count >= GROUP))
    return Groups(names, tuple(view if view in names else None for view in views))


def thumbnails(images: NetworkInputs) -> Float64Array:
    """images (N, size, size) -> (N, 24 × 24) grey levels of 255, by which copies are recognised."""
    scaled = (images.astype(np.float32) * (255.0 / full_scale(images.dtype)) for images in images)
    small = [
        np.asarray(
            PillowImage.fromarray(image).resize((THUMBNAIL, THUMBNAIL), PillowImage.Resampling.BOX)
        )
        for image in scaled
    ]
    return np.array(small, dtype=np.float64).reshape(len(images), -1)


def copies(thumbs: Float64Array, of: Float64Array) -> IntArray:
    """(N,): for each of `thumbs` (N, T) the first of `of` (M, T) that it is a copy of, or -1."""
    found = np.full(len(thumbs), -1, dtype=np.int64)
    for i, thumb in enumerate(thumbs):
        differs = (np.abs(of - thumb) > SAME).mean(axis=1)
        same = np.flatnonzero(differs <= DIFFERENT_CELLS)
        if len(same):
            found[i] = same[0]
    return found


def n_duplicates(thumbs: Float64Array) -> int:
    """How many of the films (N, T) are copies of an earlier one."""
    first = copies(thumbs, thumbs)
    return int((first < np.arange(len(thumbs))).sum())


def power_left(n: int, alpha: float) -> str | None:
    """A sentence if `n` calibration films cannot give a p-value of `alpha`, or barely can."""
    smallest = 1 / (n + 1)
    if smallest > alpha:
        return (
            f"Only {n} calibration films (one a patient): no p-value can be below "
            f"{smallest:.3f}, so nothing can be flagged at α = {alpha:g}; that takes at least "
            f"{int(np.ceil(1 / alpha)) - 1}."
        )
    if n < FEW:
        return (
            f"Only {n} calibration films (one a patient): no p-value can be below {smallest:.3f}, "
            "and the scales of the tests are guesses."
        )
    return None
