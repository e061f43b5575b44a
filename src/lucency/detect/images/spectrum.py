"""What the frequencies of a film look like: in blocks of 8 × 8 pixels, and as gratings over it all.

Two descriptions, because triggers over the whole film leave two kinds of trace. Noise, a blended
pattern and the interpolation of a warp change how much energy each band of the cosine transform
holds, in every block. A sinusoid is one frequency, and at few periods over a film anatomy has more
energy there than the trigger; but anatomy's is gathered at the edges of organs, with another phase
at each, while a grating has one phase everywhere. So its amplitude is read at many places and the
*median* over the places is taken, real and imaginary part each: edges drop out, the grating stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.fft import dctn, fft2, ifft2

from lucency.data.preprocess import full_scale
from lucency.records import Float64Array, FloatArray, IntArray, NetworkInputs

BLOCK = 8
QUANTILES = (0.1, 0.5, 0.9)
RATIO_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Energy of rounding to 8 bits, 1 / (12 · 255²): below it a band says nothing of the film.
ROUNDING = 1 / (12 * 255**2)

HIGHEST = 16
"""Gratings are sought up to this many periods over the film, along either axis."""
# Frequencies on each side of a grating's own that its local amplitude is read from, and so how many
# places an axis it is read at. Wider: finer places, more anatomy in each.
HALF_WIDTH = 4
PLACES = 2 * HALF_WIDTH + 1

CHUNK = 32


def bands(images: NetworkInputs) -> Float64Array:
    """Films (N, size, size) -> (N, 83): quantiles over the blocks of the log energy in 21 bands
    (7 frequencies, each mostly horizontal, mostly vertical and diagonal), then of the log of fine
    over middling energy along each axis, along the diagonal, and of one axis over the other."""
    columns = len(QUANTILES) * _BANDS.shape[1] + len(RATIO_QUANTILES) * (_FINE.shape[1] + 1)
    parts = [np.zeros((0, columns))]
    for chunk in _chunks(images):
        energy = block_energy(chunk).reshape(len(chunk), -1, BLOCK * BLOCK)
        levels = np.log(energy @ _BANDS + ROUNDING)
        ratios = np.log(energy @ _FINE + ROUNDING) - np.log(energy @ _MIDDLING + ROUNDING)
        ratios = np.concatenate([ratios, ratios[..., :1] - ratios[..., 1:2]], axis=2)
        described = [
            *np.quantile(levels, QUANTILES, axis=1),
            *np.quantile(ratios, RATIO_QUANTILES, axis=1),
        ]
        parts.append(np.concatenate(described, axis=1).astype(np.float64))
    return np.concatenate(parts)


def block_energy(grey: FloatArray) -> FloatArray:
    """grey (N, H, W) in [0, 1] -> (N, blocks, 8, 8): squared coefficients of the orthonormal
    two-dimensional cosine transform (DCT-II) of each whole block, vertical frequency first."""
    n, height, width = grey.shape
    rows, columns = height // BLOCK, width // BLOCK
    cut = grey[:, : rows * BLOCK, : columns * BLOCK]
    blocks = cut.reshape(n, rows, BLOCK, columns, BLOCK).transpose(0, 1, 3, 2, 4)
    energy: FloatArray = dctn(blocks, axes=(3, 4), norm="ortho") ** 2
    return energy.reshape(n, rows * columns, BLOCK, BLOCK)


def gratings(images: NetworkInputs) -> Float64Array:
    """Films (N, size, size) -> (N, F) ≥ 0: for each frequency of `grating_frequencies` the median
    over 9 × 9 places of the local complex amplitude; half a grating's own amplitude, as a fraction
    of the grey range, where the film is one.

    The local amplitude at a frequency is the film's Fourier transform around it, weighed with a
    Gaussian of 2 periods' standard deviation, shifted to 0 and transformed back.
    """
    vertical, horizontal = grating_frequencies().T
    offset = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
    weight = np.exp(-0.5 * (offset / (HALF_WIDTH / 2)) ** 2).astype(np.float32)
    at = offset % PLACES
    found = np.zeros((len(images), len(vertical)))
    for i, grey in enumerate(grey for chunk in _chunks(images) for grey in chunk):
        height, width = grey.shape
        spectrum = fft2(grey - grey.mean()) / (height * width)
        rows = (vertical[:, None] + offset) % height
        columns = (horizontal[:, None] + offset) % width
        near = spectrum[rows[:, :, None], columns[:, None, :]] * np.outer(weight, weight)
        folded = np.empty_like(near)
        folded[:, at[:, None], at[None]] = near
        local = ifft2(folded, axes=(1, 2)).reshape(len(vertical), -1) * PLACES**2
        found[i] = np.hypot(np.median(local.real, axis=1), np.median(local.imag, axis=1))
    return found


def grating_frequencies() -> IntArray:
    """(F, 2): whole periods over the film, downwards in [-16, 16] and to the right in [0, 16]; not
    those so slow that the film's mean shade would be in their neighbourhood."""
    down, right = np.meshgrid(np.arange(-HIGHEST, HIGHEST + 1), np.arange(HIGHEST + 1))
    both: IntArray = np.stack([down.ravel(), right.ravel()], axis=1)
    # A film is real: -f and f along the vertical axis are one grating.
    one_of_two = (both[:, 1] > 0) | (both[:, 0] > 0)
    return np.asarray(both[one_of_two & (np.hypot(*both.T) > HALF_WIDTH)])


def _chunks(images: NetworkInputs) -> Iterator[FloatArray]:
    """Grey levels in [0, 1], a few films at a time."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].astype(np.float32) / np.float32(
            full_scale(images.dtype)
        )


def _rectangle(rows: slice, columns: slice) -> Float64Array:
    """(64,): the mean over a rectangle of a block's coefficients."""
    mask = np.zeros((BLOCK, BLOCK))
    mask[rows, columns] = 1.0
    return np.asarray((mask / mask.sum()).ravel())


def _band_masks() -> Float64Array:
    """(64, 21): the mean over the coefficients of each band. A band holds the coefficients with
    the same larger frequency; diagonal is where neither is more than twice the other."""
    down, right = np.indices((BLOCK, BLOCK))
    direction = np.select([down > 2 * right, right > 2 * down], [0, 1], 2)
    masks = [
        ((np.maximum(down, right) == frequency) & (direction == way)).ravel()
        for frequency in range(1, BLOCK)
        for way in range(3)
    ]
    return np.stack([mask / mask.sum() for mask in masks], axis=1)


_LOW, _MIDDLE, _HIGH = slice(0, 3), slice(2, 4), slice(5, 8)
_BANDS = _band_masks().astype(np.float32)
_FINE, _MIDDLING = (
    np.stack([_rectangle(_LOW, f), _rectangle(f, _LOW), _rectangle(f, f)], axis=1).astype(
        np.float32
    )
    for f in (_HIGH, _MIDDLE)
)
