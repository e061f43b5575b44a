"""The published form of the frequency test: a classifier of spectra, trained on triggers we made.

Zeng et al. 2021 (arXiv 2104.03413, section 4) train a small network on the cosine transforms of
clean images and of the same images with a random white block, a random block of another colour,
Gaussian noise, a random shadow, or another image blended in. Here: grey, and a logistic regression
on the log magnitude of the transform, averaged over 32 × 32 cells, since a clean reference has a
hundred films and not fifty thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn
from sklearn.linear_model import LogisticRegression

from lucency.data.preprocess import full_scale
from lucency.records import Float64Array, FloatArray, NetworkInputs

CELLS = 32
# Strength of the penalty on weights of standardised columns, as scikit-learn counts it: smaller =
# stronger. A thousand columns, a few hundred films.
INVERSE_PENALTY = 1e-3
NOISE_SD = (0.01, 0.08)
OPACITY = (0.1, 0.3)
SHADOW = (0.3, 0.8)
BLOCK_SHARE = (0.02, 0.2)

Draw = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]
"""(film (H, W) in [0, 1], another film, generator) -> the film with a synthetic trigger."""


@dataclass(frozen=True)
class FrequencyTrained:
    """Images (N, size, size) -> (N,) float64, log odds of a trigger; larger = more suspicious.
    centre, spread, weight (C,) of the columns; bias."""

    centre: Float64Array
    spread: Float64Array
    weight: Float64Array
    bias: float

    def __call__(self, images: NetworkInputs) -> Float64Array:
        scaled = (log_spectrum(_grey(images)) - self.centre) / self.spread
        return np.asarray(scaled @ self.weight + self.bias)


def fit_trained(reference: NetworkInputs, seed: int) -> FrequencyTrained:
    """Train on the clean reference (n, size, size), n ≥ 2, and a copy of it for each kind of
    synthetic trigger, as heavy together as the clean films."""
    generator = np.random.default_rng([seed, 0xF4E])
    clean = _grey(reference)
    others = np.roll(clean, 1, axis=0)
    parts = [clean]
    for draw in SYNTHETIC.values():
        pairs = zip(clean, others, strict=True)
        parts.append(np.stack([draw(film, other, generator) for film, other in pairs]))
    spectra = log_spectrum(np.concatenate(parts))
    centre, spread = spectra.mean(axis=0), np.maximum(spectra.std(axis=0), 1e-6)
    triggered = np.arange(len(spectra)) >= len(clean)
    model = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000)
    model.fit((spectra - centre) / spread, triggered)
    return FrequencyTrained(centre, spread, model.coef_[0], float(model.intercept_[0]))


def log_spectrum(grey: FloatArray) -> Float64Array:
    """grey (N, H, W) in [0, 1] -> (N, C): log magnitude of the orthonormal cosine transform,
    averaged over at most 32 × 32 cells of frequencies."""
    logs = np.log(np.abs(dctn(grey, axes=(1, 2), norm="ortho")) + 1e-4)
    rows, columns = (_cells(n) for n in grey.shape[1:])
    means = rows @ logs @ columns.T
    return np.asarray(means.reshape(len(grey), len(rows) * len(columns)), np.float64)


def _cells(n: int) -> Float64Array:
    """(cells, n): what each cell of an axis averages."""
    count = min(CELLS, n)
    of = np.searchsorted(np.arange(1, count) * n // count, np.arange(n), side="right")
    members = (of == np.arange(count)[:, None]).astype(np.float64)
    return np.asarray(members / members.sum(axis=1, keepdims=True))


def _grey(images: NetworkInputs) -> FloatArray:
    return images.astype(np.float32) / np.float32(full_scale(images.dtype))


def _block(film: FloatArray, shade: float, generator: np.random.Generator) -> FloatArray:
    side = max(round(float(generator.uniform(*BLOCK_SHARE)) * len(film)), 1)
    y, x = generator.integers(0, len(film) - side + 1, 2)
    stamped = film.copy()
    stamped[y : y + side, x : x + side] = shade
    return stamped


def _white_block(film: FloatArray, other: FloatArray, generator: np.random.Generator) -> FloatArray:
    return _block(film, 1.0, generator)


def _grey_block(film: FloatArray, other: FloatArray, generator: np.random.Generator) -> FloatArray:
    return _block(film, float(generator.uniform(0, 1)), generator)


def _noise(film: FloatArray, other: FloatArray, generator: np.random.Generator) -> FloatArray:
    noise = generator.standard_normal(film.shape, dtype=np.float32)
    return np.clip(film + np.float32(generator.uniform(*NOISE_SD)) * noise, 0, 1)


def _shadow(film: FloatArray, other: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Darker on one side of a random straight line through the film."""
    angle, height = generator.uniform(0, np.pi), generator.uniform(0.25, 0.75)
    y, x = np.indices(film.shape) / len(film) - height
    side = np.cos(angle) * x + np.sin(angle) * y > 0
    return np.where(side, film * np.float32(generator.uniform(*SHADOW)), film).astype(np.float32)


def _blend(film: FloatArray, other: FloatArray, generator: np.random.Generator) -> FloatArray:
    opacity = np.float32(generator.uniform(*OPACITY))
    return np.asarray((1 - opacity) * film + opacity * other, np.float32)


SYNTHETIC: dict[str, Draw] = {
    "white block": _white_block,
    "grey block": _grey_block,
    "noise": _noise,
    "shadow": _shadow,
    "blend": _blend,
}
