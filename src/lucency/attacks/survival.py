"""Trigger survival: what is left of a trigger at the network's input.

A few native pixels can vanish in the crop and the resize (pitfall P1 of the paper: with nearest
616 → 224, centred squares of 1, 2, 3, 4 px leave 0, 0, 1, 4 px). It is measured by preprocessing
the same film with and without the trigger; nothing is assumed about the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from lucency.attacks import Trigger
from lucency.data.preprocess import InputContract, full_scale
from lucency.records import Float64Array, Image, Survival, SurvivalDistribution

# Height of the film on which one axis is measured: any will do, a low one is fast.
_STRIP = 16


def change(clean: Image, triggered: Image) -> Float64Array:
    """(size, size) float64: absolute difference, fraction of the full grey range."""
    difference = np.abs(triggered.astype(np.float64) - clean.astype(np.float64))
    return np.asarray(difference / full_scale(clean.dtype))


def measure_survival(
    trigger: Trigger, contract: InputContract, shape: tuple[int, int], anchor: tuple[float, float]
) -> Survival:
    """Survival of one placement on a film of `shape` (height, width).

    The film is flat and as far from the trigger's grey as it can be, so `max_change` is the share
    of the trigger's contrast that gets through (1 = all of it).
    """
    film = _opposite(trigger, shape)
    box = trigger.box(contract.window(shape), shape, anchor)
    left = change(contract.to_network(film), contract.to_network(trigger.apply(film, box)))
    return Survival(
        native_px=int(trigger.footprint(shape, box).sum()),
        pixels=int(np.count_nonzero(left)),
        max_change=float(left.max()),
    )


def survival_over_places(
    trigger: Trigger, contract: InputContract, shape: tuple[int, int]
) -> SurvivalDistribution:
    """Survival, at full contrast, over every place inside the crop.

    Crop and resize work on rows and columns apart, and a solid square is a product of a row and a
    column span; so what is left is the outer product of two profiles, and W + H placements stand
    for all W × H.
    """
    window = contract.window(shape)
    across = _profiles(trigger.size_px, contract, window.width, shape[1])
    down = _profiles(trigger.size_px, contract, window.height, shape[0])
    pixels: Counter[int] = Counter()
    changes = 0.0
    for row, n_rows in across.items():
        for column, n_columns in down.items():
            left = np.rint(np.outer(row, column) / 255) if row and column else np.zeros((1, 1))
            pixels[int(np.count_nonzero(left))] += n_rows * n_columns
            changes += n_rows * n_columns * float(left.max()) / 255
    return _distribution(pixels, changes)


def survival_on_images(changes: Iterable[Float64Array]) -> SurvivalDistribution:
    """Survival over real films; `changes` are what `change` returns for each."""
    pixels: Counter[int] = Counter()
    total = 0.0
    for left in changes:
        pixels[int(np.count_nonzero(left))] += 1
        total += float(left.max())
    return _distribution(pixels, total)


def _opposite(trigger: Trigger, shape: tuple[int, int]) -> Image:
    return np.full(shape, 0 if trigger.grey >= 0.5 else 255, dtype=np.uint8)


def _profiles(
    size_px: int, contract: InputContract, free: int, length: int
) -> Counter[tuple[int, ...]]:
    """Count, over all starts along one axis, the grey levels that a white stripe leaves."""
    counts: Counter[tuple[int, ...]] = Counter()
    start = contract.window((_STRIP, length)).x
    for x in range(start, start + free - size_px + 1):
        film = np.zeros((_STRIP, length), dtype=np.uint8)
        film[:, x : x + size_px] = 255
        line = contract.to_network(film)[contract.size // 2]
        counts[tuple(int(v) for v in line[line > 0])] += 1
    return counts


def _distribution(pixels: Counter[int], total_change: float) -> SurvivalDistribution:
    n = sum(pixels.values())
    return SurvivalDistribution(
        n_places=n,
        share_vanished=pixels[0] / n if n else 0.0,
        mean_pixels=sum(k * v for k, v in pixels.items()) / n if n else 0.0,
        mean_max_change=total_change / n if n else 0.0,
        pixels={str(k): v / n for k, v in sorted(pixels.items())},
    )
