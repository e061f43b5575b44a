"""Did a detector's region, or an attribution map, point at the trigger?

A map of h × w cells over an image of H × W pixels is scored in pixels of the image: cell (i, j)
covers the rectangle from (i H / h, j W / w) to ((i + 1) H / h, (j + 1) W / w), and nothing is
interpolated. Only the positive part of a map counts: what speaks for the finding. Negate a map to
score a trigger that clears one.

Pointing game: Zhang et al. 2018 (arXiv 1608.00507). Energy in the box: Wang et al. 2020 (arXiv
1910.01279); relevance mass accuracy: Arras et al. 2022 (arXiv 2003.07258).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.records import BoolArray, Box, Float64Array

TOLERANCE_PX = 2.0
WIDE_TOLERANCE_PX = 5.0
MARGIN_PX = 2
TOP_K = 5

NOT_FINITE = "the map is not finite"
NO_EVIDENCE = "the map has no positive value"
NO_PEAK = "the map is the same everywhere, so it has no peak"


@dataclass(frozen=True)
class Localisation:
    """How well one map points at one box; larger is better for all but the distance.

    distance_px: from the centre of the peak to the nearest pixel of the box, the larger of the
        horizontal and the vertical one, 0 inside; of cells that tie apart, the farthest.
    is_hit, is_wide_hit: that distance is at most 2 px, at most 5 px.
    is_top_hit: at least one of the k strongest cells is within 2 px, in whatever order ties are
        taken.
    energy, energy_near: share of the map's positive mass inside the box, and inside the box with
        2 px around it, in [0, 1].
    iou: intersection over union of the box with {value ≥ threshold}, at the threshold above 0 that
        is best for this box, in [0, 1].
    reason: why what is ``None`` is undefined; such a map hits nothing.
    """

    distance_px: float | None
    is_hit: bool
    is_wide_hit: bool
    is_top_hit: bool
    energy: float | None
    energy_near: float | None
    iou: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Peak:
    """The strongest cell of a map, or the rectangle of cells that are equally strong: its first row
    and column and its size in cells, and its centre (x, y) in pixels of the image, the centre of
    the first pixel being (0, 0)."""

    row: int
    column: int
    rows: int
    columns: int
    x: float
    y: float


def is_hit(region: Box | None, trigger: Box) -> bool:
    """Say whether the region centre is within 2 px of the trigger; no region is a miss.

    Both in pixels of the network's input. A box covers the pixels x to x + width - 1, so a
    region's centre is (x + (width - 1) / 2, y + (height - 1) / 2). The distance to the trigger is
    the larger of the horizontal and the vertical one to its nearest pixel (Chebyshev), 0 inside.
    """
    if region is None:
        return False
    across = _gap(region.x + (region.width - 1) / 2, trigger.x, trigger.width)
    down = _gap(region.y + (region.height - 1) / 2, trigger.y, trigger.height)
    return max(across, down) <= TOLERANCE_PX


def localise(
    cells: npt.ArrayLike, box: Box, shape: tuple[int, int], *, top_k: int = TOP_K
) -> Localisation:
    """Score one map (h, w), any real dtype, against a box on an image of `shape` (height, width).

    A map without a positive value points nowhere. One that is the same everywhere has mass and
    area, but no peak. Cells that tie at the peak count by their common centre if they fill a
    rectangle, and else hit only if each of them does: whoever picks one is right.
    Raises DataError for a map that is not 2-D, a `top_k` below 1, or a box that is empty or not
    within the image.

    >>> localise(np.eye(4), Box(x=0, y=0, width=1, height=1), (4, 4)).energy
    0.25
    """
    values = _checked(cells, box, shape, top_k)
    if not np.isfinite(values).all():
        return _nowhere(NOT_FINITE)
    positive = np.maximum(values, 0.0)
    if not positive.any():
        return _nowhere(NO_EVIDENCE)
    inside = covered(positive.shape, shape, box)
    near = covered(positive.shape, shape, _dilated(box))
    energy, energy_near = _share(positive, inside), _share(positive, near)
    iou = _best_iou(positive, inside)
    if positive.min() == positive.max():
        return Localisation(None, False, False, False, energy, energy_near, iou, NO_PEAK)
    distances = _distances(positive.shape, shape, box)
    peak = find_peak(positive, shape)
    if isinstance(peak, Peak):
        farthest = max(_gap(peak.y, box.y, box.height), _gap(peak.x, box.x, box.width))
    else:
        farthest = float(distances[positive == positive.max()].max())
    return Localisation(
        distance_px=farthest,
        is_hit=farthest <= TOLERANCE_PX,
        is_wide_hit=farthest <= WIDE_TOLERANCE_PX,
        is_top_hit=_is_top_hit(positive, (distances <= TOLERANCE_PX) & (positive > 0), top_k),
        energy=energy,
        energy_near=energy_near,
        iou=iou,
    )


def find_peak(cells: npt.ArrayLike, shape: tuple[int, int]) -> Peak | str:
    """Return the strongest cells of a map (h, w) on an image of `shape`, or why there are none.

    Cells that tie are one peak if they fill a rectangle: a window that was covered as one.
    """
    values = np.asarray(cells, dtype=np.float64)
    if not np.isfinite(values).all():
        return NOT_FINITE
    if not (values > 0).any():
        return NO_EVIDENCE
    tied = values == values.max()
    if tied.all():
        return NO_PEAK
    rows, columns = np.flatnonzero(tied.any(axis=1)), np.flatnonzero(tied.any(axis=0))
    top, bottom, left, right = (int(n) for n in (rows[0], rows[-1], columns[0], columns[-1]))
    if not tied[top : bottom + 1, left : right + 1].all():
        return f"{int(tied.sum())} cells apart are equally strong"
    down, across = _centres(values.shape[0], shape[0]), _centres(values.shape[1], shape[1])
    return Peak(
        row=top,
        column=left,
        rows=bottom - top + 1,
        columns=right - left + 1,
        x=float(across[left] + across[right]) / 2,
        y=float(down[top] + down[bottom]) / 2,
    )


def covered(grid: tuple[int, ...], shape: tuple[int, int], box: Box) -> Float64Array:
    """Share of each cell of a grid (h, w) over an image of `shape` that lies in the box, (h, w)."""
    down = _overlap(grid[0], shape[0], box.y, box.height) * grid[0] / shape[0]
    across = _overlap(grid[1], shape[1], box.x, box.width) * grid[1] / shape[1]
    return np.outer(down, across)


def _checked(cells: npt.ArrayLike, box: Box, shape: tuple[int, int], top_k: int) -> Float64Array:
    values = np.asarray(cells, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"Expected a map of shape (h, w), got {values.shape}.")
    if top_k < 1:
        raise DataError(f"Expected top_k of at least 1 cell, got {top_k}.")
    height, width = shape
    is_within = box.x >= 0 and box.y >= 0
    is_within = is_within and box.x + box.width <= width and box.y + box.height <= height
    if box.width < 1 or box.height < 1 or not is_within:
        raise DataError(
            f"Expected a box of at least one pixel within the {height} × {width} image, got {box}."
        )
    return values


def _nowhere(reason: str) -> Localisation:
    return Localisation(None, False, False, False, None, None, None, reason)


def _dilated(box: Box) -> Box:
    return Box(
        x=box.x - MARGIN_PX,
        y=box.y - MARGIN_PX,
        width=box.width + 2 * MARGIN_PX,
        height=box.height + 2 * MARGIN_PX,
    )


def _overlap(n_cells: int, length: int, start: int, size: int) -> Float64Array:
    """Pixels that each cell of an axis shares with start to start + size."""
    edges = np.arange(n_cells + 1) * length / n_cells
    shared = np.minimum(edges[1:], start + size) - np.maximum(edges[:-1], start)
    return np.asarray(np.maximum(shared, 0.0))


def _share(positive: Float64Array, of_cell: Float64Array) -> float:
    return float((positive * of_cell).sum() / positive.sum())


def _best_iou(positive: Float64Array, inside: Float64Array) -> float:
    """Lower the threshold from cell to cell; only where the value changes is it a threshold."""
    values, at, count = np.unique(-positive, return_inverse=True, return_counts=True)
    shared = np.bincount(at.ravel(), weights=inside.ravel())
    is_positive = values < 0
    intersection, area = np.cumsum(shared)[is_positive], np.cumsum(count)[is_positive]
    return float((intersection / (inside.sum() + area - intersection)).max())


def _centres(n_cells: int, length: int) -> Float64Array:
    """The middle of each cell of an axis, where pixel 0 has its centre at 0."""
    return np.asarray((np.arange(n_cells) + 0.5) * length / n_cells - 0.5)


def _distances(grid: tuple[int, ...], shape: tuple[int, int], box: Box) -> Float64Array:
    """From the centre of each cell to the nearest pixel of the box, (h, w), Chebyshev."""
    down = np.array([_gap(y, box.y, box.height) for y in _centres(grid[0], shape[0])])
    across = np.array([_gap(x, box.x, box.width) for x in _centres(grid[1], shape[1])])
    return np.asarray(np.maximum(down[:, None], across[None, :]))


def _is_top_hit(positive: Float64Array, hits: BoolArray, top_k: int) -> bool:
    """Whether the k strongest cells hold a hit even if, of cells that tie, misses come first."""
    order = np.lexsort((hits.ravel(), -positive.ravel()))[:top_k]
    return bool(hits.ravel()[order].any())


def _gap(centre: float, start: int, size: int) -> float:
    """Return how far a coordinate lies outside the pixels start to start + size - 1."""
    return max(start - centre, centre - (start + size - 1), 0.0)
