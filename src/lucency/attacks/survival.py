"""Trigger survival: what is left of a trigger at the network's input.

A few native pixels can vanish in the crop and the resize (pitfall P1 of the paper: with nearest
616 → 224, centred squares of 1, 2, 3, 4 px leave 0, 0, 1, 4 px). It is measured by preprocessing
the same film with and without the trigger.

A patch has a survival of its own, measured on a flat film. What a trigger on the whole image
changes depends on the film, so for those there is `survival_on_images` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

import numpy as np

from lucency.attacks import PatchTrigger, Trigger
from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ConfigError
from lucency.records import Float64Array, Image, IntArray, Survival, SurvivalDistribution

Grey = np.uint8 | np.uint16


def change(clean: Image, triggered: Image) -> Float64Array:
    """(size, size) float64: absolute difference, fraction of the full grey range."""
    difference = np.abs(triggered.astype(np.float64) - clean.astype(np.float64))
    return np.asarray(difference / full_scale(clean.dtype))


def survives_alone(trigger: Trigger) -> TypeGuard[PatchTrigger]:
    """Whether a flat film shows what is left of the trigger: `measure_survival` applies."""
    return isinstance(trigger, PatchTrigger)


def survives_alike(trigger: Trigger) -> TypeGuard[PatchTrigger]:
    """Whether `survival_over_places` can stand a row and a column for every place."""
    return isinstance(trigger, PatchTrigger) and trigger.is_one_solid_square


def measure_survival(
    trigger: PatchTrigger,
    contract: InputContract,
    shape: tuple[int, int],
    anchor: tuple[float, float],
) -> Survival:
    """Survival of one placement on a film of `shape` (height, width).

    The film is flat and as far from the trigger's grey as it can be, so for a black or white
    trigger `max_change` is the share of its contrast that gets through (1 = all of it). For a
    checkerboard it is as far from both greys as it can be: half of the range from black and white.
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
    trigger: PatchTrigger, contract: InputContract, shape: tuple[int, int]
) -> SurvivalDistribution:
    """Survival, at full contrast, over every place inside the crop.

    Crop and resize work on rows and columns apart, and a solid square is a product of a row and a
    column span. So it is measured what the columns leave of it, then what the rows leave of each of
    those greys; W + H placements stand for all W × H. Raises ConfigError if it fits nowhere, or
    for a checkerboard, which is no such product.
    """
    if not survives_alike(trigger):
        raise ConfigError(
            f"Survival over all places is that of a solid patch, got pattern = "
            f"{trigger.pattern!r}; measure it on images."
        )
    window = contract.window(shape)
    trigger.box(window, shape, (0.0, 0.0))
    film, patch = _greys(trigger, contract)
    columns = (lines[0] for lines in _stripes(trigger, contract, window.width, film, [patch]))
    across = Counter(tuple(line[line != int(film)].tolist()) for line in columns)
    greys = sorted({grey for left in across for grey in left})
    levels = np.stack(
        [_levels(lines, film) for lines in _stripes(trigger, contract, window.height, film, greys)]
    )
    counts, depths = np.count_nonzero(levels, axis=2), levels.max(axis=2)
    pixels: Counter[int] = Counter()
    changes = 0.0
    for left, n in across.items():
        at = np.searchsorted(greys, left)
        for k, n_rows in Counter(counts[:, at].sum(axis=1).tolist()).items():
            pixels[k] += n * n_rows
        changes += n * float(depths[:, at].max(axis=1, initial=0.0).sum()) / 255
    return _distribution(pixels, changes)


def survival_on_images(changes: Iterable[Float64Array]) -> SurvivalDistribution:
    """Survival over real films; `changes` are what `change` returns for each."""
    pixels: Counter[int] = Counter()
    total = 0.0
    for left in changes:
        pixels[int(np.count_nonzero(left))] += 1
        total += float(left.max())
    return _distribution(pixels, total)


def _opposite(trigger: PatchTrigger, shape: tuple[int, int]) -> Image:
    """The flat film that is farthest from every grey of the trigger."""
    film = max((0, 255, 128), key=lambda f: min(abs(f - 255 * grey) for grey in trigger.greys))
    return np.full(shape, film, dtype=np.uint8)


def _greys(trigger: PatchTrigger, contract: InputContract) -> tuple[Grey, int]:
    """The greys of film and patch at full contrast. "bilinear" keeps fractions between the axes,
    hence 16 bits; all else rounds to the stored grid."""
    white = np.uint16(65535) if contract.resize == "bilinear" else np.uint8(255)
    return (white * 0, int(white)) if trigger.grey >= 0.5 else (white, 0)


def _stripes(
    trigger: PatchTrigger, contract: InputContract, length: int, film: Grey, greys: Sequence[int]
) -> Iterator[IntArray]:
    """For every start along an axis of `length`: (G, size), what is left of stripes of G greys.

    As many rows as the network has, so that only the one axis is resized."""
    size, uncropped = contract.size, contract.model_copy(update={"crop": 1.0})
    for start in range(length - trigger.size_px + 1):
        left = np.zeros((len(greys), size), np.int64)
        for first in range(0, len(greys), size):
            some = greys[first : first + size]
            stripes: Image = np.full((size, length), film, film.dtype)
            for row, grey in enumerate(some):
                stripes[row, start : start + trigger.size_px] = grey
            left[first : first + size] = uncropped.to_network(stripes)[: len(some)]
        yield left


def _levels(lines: IntArray, film: Grey) -> Float64Array:
    """How many of 255 grey levels lie between the lines, rounded to them, and the film."""
    step = full_scale(film.dtype) // 255
    return np.asarray(np.abs(np.rint(lines / step) - film / step), dtype=np.float64)


def _distribution(pixels: Counter[int], total_change: float) -> SurvivalDistribution:
    n = sum(pixels.values())
    return SurvivalDistribution(
        n_places=n,
        share_vanished=pixels[0] / n if n else 0.0,
        mean_pixels=sum(k * v for k, v in pixels.items()) / n if n else 0.0,
        mean_max_change=total_change / n if n else 0.0,
        pixels={str(k): v / n for k, v in sorted(pixels.items())},
    )
