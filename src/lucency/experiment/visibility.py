"""Would a reader see it? How much a run's triggered test films differ from the same films without
the trigger, at their own resolution, which a reader sees, and at the network's.

PSNR, and SSIM (Wang et al. 2004, Gaussian window of 11 px, sigma 1.5; MONAI's version).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs

from lucency.attacks.ledger import WithAndWithout, stamp
from lucency.data.preprocess import full_scale
from lucency.errors import DataError
from lucency.experiment.films import Films
from lucency.records import Decoded, Float64Array, Image, TriggerVisibility, Visibility

N_FILMS = 32
"""The first ones; at native resolution a film is read again."""
WINDOW, SIGMA = 11, 1.5
UNCHANGED = "no pixel differs"


def trigger_visibility(films: Films) -> TriggerVisibility:
    """Of the first triggered test films. Raises DataError for a film that cannot be read again."""
    few = slice(0, N_FILMS)
    clean = films.test.images[films.triggered_in_test[few]]
    return TriggerVisibility(
        native=measure_visibility(_native(films, [int(r) for r in films.triggered.rows[few]])),
        network=measure_visibility(zip(clean, films.triggered.images[few], strict=True)),
    )


def _native(films: Films, rows: list[int]) -> Iterator[tuple[Image, Image]]:
    both = WithAndWithout(stamp(films.test_ledger, films.contract))
    for found in films.radiographs.images.read(rows, both):
        if not isinstance(found, Decoded):
            raise DataError(
                "A film could be read at first and not a second time; the data set must not change "
                "during a run."
            )
        height = len(found.image) // 2
        yield found.image[:height], found.image[height:]


def measure_visibility(pairs: Iterable[tuple[Image, Image]]) -> Visibility:
    """Compare films (H, W) uint8 or uint16 without and with the trigger, pair by pair.

    PSNR is that of the mean squared error over all films, dB: higher = harder to see; None where
    nothing differs. SSIM is the mean over films, in [-1, 1]: 1 = the same; None where a film is
    smaller than the window.
    """
    errors, similarities = [], []
    for clean, triggered in pairs:
        scale = full_scale(clean.dtype)
        a, b = clean.astype(np.float64) / scale, triggered.astype(np.float64) / scale
        errors.append(float(np.mean((a - b) ** 2)))
        if min(a.shape) >= WINDOW:
            similarities.append(_ssim(a, b))
    error = float(np.mean(errors)) if errors else 0.0
    complete = bool(similarities) and len(similarities) == len(errors)
    return Visibility(
        n_images=len(errors),
        psnr_db=-10 * math.log10(error) if error else None,
        ssim=float(np.mean(similarities)) if complete else None,
        reason=None if error else UNCHANGED,
    )


def _ssim(a: Float64Array, b: Float64Array) -> float:
    first, second = (torch.from_numpy(x).float()[None, None] for x in (a, b))
    values, _ = compute_ssim_and_cs(first, second, 2, [WINDOW] * 2, [SIGMA] * 2, data_range=1.0)
    return float(values.double().mean())
