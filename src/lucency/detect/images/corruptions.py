"""What happens to films on their way: corruptions that are plausible for radiographs, by severity.

After the common corruptions of Hendrycks and Dietterich (ICLR 2019, arXiv 1903.12261), on grey,
without weather. Each is a function of the *clean* film and a severity: none compounds. The first
severities are milder than theirs, since a finding is fainter than the object of a photograph.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from zlib import crc32

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

SEVERITIES = (1, 2, 3, 4, 5)

Corruption = Callable[[Tensor, int, Tensor], Tensor]
"""(grey (N, 1, H, W) float32 in [0, 1], severity 1 to 5, noise of the same shape, standard normal)
-> the same shape in [0, 1]. The argument is left as it is."""

NOISE_SD = (0.02, 0.04, 0.08, 0.12, 0.18)
"""Of quantum noise, fraction of the grey range."""
BLUR_SD_PX = (0.5, 1.0, 1.5, 2.5, 4.0)
MOTION_PX = (3, 5, 7, 11, 15)
"""How far the patient moved along the body's axis during the exposure."""
JPEG_QUALITY = (80, 50, 25, 15, 7)
PIXEL_SIDE_PX = (1.25, 1.67, 2.0, 3.0, 4.0)
"""Side of the pixels of a coarser copy, in pixels of the film."""
WINDOW = (0.8, 0.6, 0.4, 0.3, 0.2)
"""Contrast that is left by a wider window about the film's mean."""
GAMMA = (1.2, 1.5, 1.8, 2.2, 3.0)
BRIGHTNESS = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Added, fraction of the grey range."""


def noise_of(grey: Tensor, seed: int) -> Tensor:
    """(N, 1, H, W) standard normal, float32, for grey of that shape; drawn from the seed and the
    film's own grey levels, so that a film's noise depends neither on its place in the batch nor on
    the other films, nor on the dtype in which it was stored."""
    films = np.rint(grey.cpu().numpy() * 255).astype(np.uint8)
    noise = np.empty(films.shape, np.float32)
    for i, film in enumerate(films):
        generator = np.random.default_rng([seed, 0xC0, crc32(film.tobytes())])
        generator.standard_normal(dtype=np.float32, out=noise[i])
    return torch.from_numpy(noise).to(grey.device)


def _noisy(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    return (grey + NOISE_SD[severity - 1] * noise).clamp(0, 1)


def _blurred(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    sd = BLUR_SD_PX[severity - 1]
    reach = int(np.ceil(3 * sd))
    offset = torch.arange(-reach, reach + 1, device=grey.device)
    kernel = torch.exp(-0.5 * (offset / sd) ** 2)
    kernel = kernel / kernel.sum()
    return _filtered(_filtered(grey, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def _moved(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    length = MOTION_PX[severity - 1]
    return _filtered(grey, torch.full((1, 1, length, 1), 1 / length, device=grey.device))


def _compressed(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    films = np.rint(grey[:, 0].clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
    decoded = np.empty_like(films)
    for i, film in enumerate(films):
        buffer = io.BytesIO()
        PillowImage.fromarray(film).save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
        decoded[i] = np.asarray(PillowImage.open(buffer, formats=("JPEG",)))
    return (torch.from_numpy(decoded)[:, None].to(grey.device) / 255.0).to(grey.dtype)


def _coarser(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    height, width = grey.shape[-2:]
    side = PIXEL_SIDE_PX[severity - 1]
    small = (max(round(height / side), 1), max(round(width / side), 1))
    coarse = interpolate(grey, small, mode="area")
    return interpolate(coarse, (height, width), mode="nearest-exact")


def _windowed(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (mean + WINDOW[severity - 1] * (grey - mean)).clamp(0, 1)


def _darkened(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    return grey.clamp(0, 1) ** GAMMA[severity - 1]


def _brightened(grey: Tensor, severity: int, noise: Tensor) -> Tensor:
    return (grey + BRIGHTNESS[severity - 1]).clamp(0, 1)


def _filtered(grey: Tensor, kernel: Tensor) -> Tensor:
    """Correlation with an odd kernel (1, 1, h, w), the film's border repeated outwards."""
    down, right = kernel.shape[-2] // 2, kernel.shape[-1] // 2
    return conv2d(pad(grey, (right, right, down, down), mode="replicate"), kernel.to(grey.dtype))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": _noisy,
    "blur": _blurred,
    "motion": _moved,
    "JPEG": _compressed,
    "resampling": _coarser,
    "window": _windowed,
    "gamma": _darkened,
    "brightness": _brightened,
}
