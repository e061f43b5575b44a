"""Pictures of films that share something: what is shared, close up, on several films beside each
other, and where it is on one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lucency.data.inputs import as_stored
from lucency.detect.datasets.specks import grey_of
from lucency.records import Decoded, IntArray, Radiographs
from lucency.scanning.findings import N_IMAGES, Judged

N_SHOWN = 8
"""Things with pictures."""
MARGIN = 12
"""Pixels around a speck."""
LARGEST = 512
"""Side of a whole film's picture."""

Pictures = dict[str, npt.NDArray[np.generic]]


def draw(radiographs: Radiographs, judged: Sequence[Judged]) -> Pictures:
    """For the i-th of the first things, `thing-i/close` (n, side, side) uint8, what is around it on
    n films; `thing-i/film` (h, w) uint8, the first film, in steps of `thing-i/step` (1,) pixels;
    and `thing-i/box` (4,) int64: y, x, height, width on it, in pixels as stored."""
    pictures: Pictures = {}
    for i, each in enumerate(judged[:N_SHOWN], 1):
        found = each.recurrence
        chosen = slice(0, N_IMAGES)
        boxes = dict(zip(found.films[chosen].tolist(), found.boxes[chosen], strict=True))
        closes, whole = [], None
        side = int(found.boxes[:, 2:].max()) + 2 * MARGIN
        for item in radiographs.images.read(list(boxes), as_stored):
            if not isinstance(item, Decoded):
                continue
            grey = grey_of(item.image)
            box = boxes[item.index]
            closes.append(_around(grey, box, side))
            if whole is None:
                step = -(-max(grey.shape) // LARGEST)
                whole = {
                    f"thing-{i}/film": grey[::step, ::step],
                    f"thing-{i}/step": np.array([step]),
                    f"thing-{i}/box": box,
                }
        if whole is not None:
            pictures |= {f"thing-{i}/close": np.stack(closes), **whole}
    return {name: np.ascontiguousarray(array) for name, array in pictures.items()}


def _around(grey: npt.NDArray[np.uint8], box: IntArray, side: int) -> npt.NDArray[np.uint8]:
    """(side, side) about the middle of the box; black beyond the film."""
    y, x, height, width = (int(v) for v in box)
    padded = np.pad(grey, side)
    top, left = y + height // 2 - side // 2 + side, x + width // 2 - side // 2 + side
    return padded[top : top + side, left : left + side]
