"""The input contract: how a film as stored becomes what a network sees.

Attacks, victims and detectors share this file, so that a trigger meets the same crop and the same
resize kernel everywhere. Pixels stay in the stored dtype (rounded), so a cache of network inputs
costs one byte a pixel; scaling to [0, 1], mean and standard deviation come last, on the tensor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image as PillowImage
from pydantic import Field, model_validator

from lucency.errors import DataError
from lucency.records import Box, Float64Array, Image, Record

ResizeKernel = Literal["nearest", "nearest-asymmetric", "bilinear", "bilinear-antialias", "area"]
"""nearest: half-pixel centres (TensorFlow 2, Pillow, torch "nearest-exact").
nearest-asymmetric: torch "nearest" and OpenCV. bilinear: two samples an axis, as torch without
antialiasing. bilinear-antialias: Pillow, torch with antialiasing. area: mean over the source box.
"""

_PILLOW = {
    "bilinear-antialias": PillowImage.Resampling.BILINEAR,
    "area": PillowImage.Resampling.BOX,
}


class InputContract(Record):
    """How pixels enter a network.

    channels: 1, or 3 equal ones. size: height and width at the network's input, pixels.
    crop: central fraction kept before the resize, in (0, 1]. resize: the kernel.
    mean, std: a value a channel, after scaling the stored range to [0, 1].
    """

    channels: Literal[1, 3] = 1
    size: int = Field(default=224, ge=16, le=2048)
    crop: float = Field(default=1.0, gt=0, le=1)
    resize: ResizeKernel = "nearest"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> InputContract:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(
                    f"{name} must have 1 value or one for each of the {self.channels} channels, "
                    f"got {len(values)}"
                )
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {min(self.std)}")
        return self

    def window(self, shape: tuple[int, int]) -> Box:
        """The central crop of an image of `shape` (height, width), after TensorFlow's
        `central_crop`: the margin is rounded down, so 60 % of 1024 keeps 616."""
        height, width = shape
        top, left = int((height - height * self.crop) / 2), int((width - width * self.crop) / 2)
        return Box(x=left, y=top, width=width - 2 * left, height=height - 2 * top)

    def to_network(self, image: Image) -> Image:
        """Crop and resize one film (H, W) to (size, size), same dtype, rounded to the grid.

        Raises DataError for anything but a 2-D uint8 or uint16 array.
        """
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"A film must be a 2-D uint8 or uint16 array, got {image.ndim}-D {image.dtype}; "
                "convert colour to luminance before preprocessing."
            )
        window = self.window((image.shape[0], image.shape[1]))
        cropped: Image = image[
            window.y : window.y + window.height, window.x : window.x + window.width
        ]
        if cropped.shape == (self.size, self.size):
            copied: Image = cropped.copy()
            return copied
        return _resize(cropped, self.size, self.resize)

    def to_network_box(self, box: Box, shape: tuple[int, int]) -> Box | None:
        """The network pixels that a native box covers at least in part; None if it is cropped."""
        window = self.window(shape)
        x0, x1 = _span(box.x - window.x, box.width, window.width, self.size)
        y0, y1 = _span(box.y - window.y, box.height, window.height, self.size)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self.size), min(y1, self.size)
        if x1 <= x0 or y1 <= y0:
            return None
        return Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0)

    def to_native_box(self, box: Box, shape: tuple[int, int]) -> Box:
        """The native pixels, of an image of `shape`, behind a box of network pixels."""
        window = self.window(shape)
        x0, x1 = _span(box.x, box.width, self.size, window.width)
        y0, y1 = _span(box.y, box.height, self.size, window.height)
        x0, y0, x1, y1 = window.x + x0, window.y + y0, window.x + x1, window.y + y1
        x1, y1 = min(x1, shape[1]), min(y1, shape[0])
        return Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0)


def full_scale(dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> int:
    """White of a stored dtype: 255 or 65535."""
    return int(np.iinfo(dtype).max)


def stored(values: Float64Array, like: Image) -> Image:
    """Values (H, W) in stored units -> the grid and the range of the film `like`, its dtype."""
    rounded = np.clip(np.rint(values), 0, full_scale(like.dtype))
    return rounded.astype(np.uint16) if like.dtype == np.uint16 else rounded.astype(np.uint8)


def _span(start: int, length: int, old: int, new: int) -> tuple[int, int]:
    """The pixels of an axis of `new` that some of its `old` pixels overlap; whole numbers, since
    a rounded quotient would add a pixel at exact borders."""
    return start * new // old, -(-(start + length) * new // old)


def _resize(image: Image, size: int, kernel: ResizeKernel) -> Image:
    if kernel in ("nearest", "nearest-asymmetric"):
        # Whole numbers: Pillow adds up a rounded step, and takes either neighbour at exact borders.
        at = 2 * np.arange(size) + (kernel == "nearest")
        rows, columns = (at * n // (2 * size) for n in image.shape)
        picked: Image = image[rows][:, columns]
        return picked
    if kernel == "bilinear":
        return _bilinear(image, size)
    if image.dtype == np.uint8:
        small = PillowImage.fromarray(image).resize((size, size), _PILLOW[kernel])
        return np.asarray(small, dtype=np.uint8)
    # Pillow filters 16-bit grey only as 32-bit float.
    wide = PillowImage.fromarray(image.astype(np.float32))
    small16 = np.asarray(wide.resize((size, size), _PILLOW[kernel]))
    return np.asarray(np.rint(small16), dtype=np.uint16)


def _bilinear(image: Image, size: int) -> Image:
    rows, row_share = _taps(image.shape[0], size)
    columns, column_share = _taps(image.shape[1], size)
    tall = _mix(image[rows[0]], image[rows[1]], row_share[:, None])
    both = _mix(tall[:, columns[0]], tall[:, columns[1]], column_share[None, :])
    if image.dtype == np.uint16:
        return np.rint(both).astype(np.uint16)
    return np.rint(both).astype(np.uint8)


def _taps(n: int, size: int) -> tuple[tuple[np.ndarray, np.ndarray], Float64Array]:
    """For every output pixel, its two source pixels and the share of the second."""
    centre = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.floor(centre).astype(np.int64)
    return (low, np.minimum(low + 1, n - 1)), centre - low


def _mix(a: np.ndarray, b: np.ndarray, share: Float64Array) -> Float64Array:
    return np.asarray(a * (1 - share) + b * share, dtype=np.float64)
