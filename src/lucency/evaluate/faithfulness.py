"""Does the network lose its logit when the patches that a map ranks first are taken away?

Deletion and insertion (Petsiuk, Das and Saenko 2018, RISE, arXiv 1806.07421, section 4.1), at the
scale of patches and on the logit: the image is cut into squares, which a fill (such as the median
of the film) replaces, or is replaced by, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.evaluate.localisation import covered
from lucency.records import Box, Float64Array, FloatArray, IntArray

Logit = Callable[[FloatArray], npt.ArrayLike]
"""Images (M, H, W) float32 in [0, 1] -> the logit of one finding, (M,)."""


@dataclass(frozen=True)
class PatchCurve:
    """Logits of one image while its patches change, most important first.

    deletion, insertion (k + 1,) float64: the logit with the first 0 … k patches filled, and that of
    the fill with the first 0 … k patches of the image put back.
    """

    deletion: Float64Array
    insertion: Float64Array

    @property
    def deletion_area(self) -> float:
        """Mean logit along the deletion curve; lower = the map ranks what the logit rests on."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """Mean logit along the insertion curve; higher = the map ranks what the logit rests on."""
        return _area(self.insertion)

    @property
    def mean_drop(self) -> float:
        """Logit of the image minus `deletion_area`; higher is better. 0 if nothing changed."""
        return float(self.deletion[0]) - self.deletion_area


def patch_curve(
    logit: Logit,
    image: FloatArray,
    cells: npt.ArrayLike,
    fill: FloatArray,
    *,
    side: int,
    k: int,
    generator: np.random.Generator,
) -> PatchCurve:
    """Measure both curves over the k patches of side × side pixels that a map ranks first.

    image, fill (H, W) float32 in [0, 1]; cells (h, w), a map over the image at any resolution, of
    which a patch gets the positive mass inside it. Patches that tie, such as all those within one
    coarse cell, come in an order drawn from `generator`. `logit` is called twice, with k + 1 images
    each. Raises DataError for shapes that do not fit, or a k that is not 1 to the patch count.
    """
    order = rank_patches(cells, (image.shape[0], image.shape[1]), side=side, generator=generator)
    if fill.shape != image.shape:
        raise DataError(f"Expected a fill of the image's shape {image.shape}, got {fill.shape}.")
    if not 1 <= k <= len(order):
        raise DataError(f"Expected k from 1 to the {len(order)} patches of the image, got {k}.")
    deletion, insertion = np.stack([image] * (k + 1)), np.stack([fill] * (k + 1))
    for step, (y, x) in enumerate(order[:k], start=1):
        deletion[step:, y : y + side, x : x + side] = fill[y : y + side, x : x + side]
        insertion[step:, y : y + side, x : x + side] = image[y : y + side, x : x + side]
    return PatchCurve(_logits(logit, deletion), _logits(logit, insertion))


def rank_patches(
    cells: npt.ArrayLike, shape: tuple[int, int], *, side: int, generator: np.random.Generator
) -> IntArray:
    """Order the patches of an image of `shape` by a map's positive mass in them, largest first.

    Returns (P, 2) int64: top row and left column of each; patches at the right and lower border may
    be smaller than `side`. Values that are not finite count as 0.
    """
    values = np.asarray(cells, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or side < 1:
        raise DataError(
            f"Expected a map of shape (h, w) and patches of at least 1 pixel, got {values.shape} "
            f"and {side}."
        )
    positive = np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    height, width = shape
    rows, columns = range(0, height, side), range(0, width, side)
    down = np.stack([_rows(positive.shape[0], height, y, min(side, height - y)) for y in rows])
    across = np.stack([_rows(positive.shape[1], width, x, min(side, width - x)) for x in columns])
    mass = (down @ positive @ across.T).ravel()
    corners = np.array([(y, x) for y in rows for x in columns], dtype=np.int64)
    drawn = generator.permutation(len(mass))
    # Rounding must not order what ties: patches in one cell get equal sums up to the last bits.
    rounded = np.round(mass[drawn] / max(float(mass.max()), np.finfo(float).tiny), 12)
    return corners[drawn[np.argsort(-rounded, kind="stable")]]


def _logits(logit: Logit, images: FloatArray) -> Float64Array:
    values = np.asarray(logit(images), dtype=np.float64)
    if values.shape != (len(images),):
        raise DataError(f"Expected {len(images)} logits, one an image, got {values.shape}.")
    return values


def _rows(n_cells: int, length: int, start: int, size: int) -> Float64Array:
    """Share of each cell of one axis that lies in start to start + size."""
    strip = Box(x=0, y=start, width=1, height=size)
    return covered((n_cells, 1), (length, 1), strip)[:, 0]


def _area(curve: Float64Array) -> float:
    """Trapezoids over steps of equal width, the whole width being 1."""
    return float((curve[:-1] + curve[1:]).mean() / 2)
