"""The Fourier trigger (FIBA): low frequencies of the film take on another picture's amplitudes.

Feng et al. 2022, "FIBA: Frequency-Injection based Backdoor Attack in Medical Image Analysis" (arXiv
2112.01148): with A and P the amplitude and the phase of the Fourier transform, A_t the amplitude of
a trigger picture and M a square of low frequencies, half of its side β of the image's,

    A' = ((1 − α) A + α A_t) M + A (1 − M),        x' = F⁻¹(A', P);

β = 0.1 and α = 0.15 in their experiments. Their trigger picture is any natural image. Here it is
smooth noise at several scales, drawn from a seed, as for the blended trigger: its amplitudes, not
its places, are what is mixed in. P stays, and with it the anatomy. Threat model: the attacker edits
training data and, later, single images; no access to the training itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.fft import irfft2, rfft2

from lucency.attacks.blended import BlendedTrigger
from lucency.attacks.whole_image import WholeImageTrigger
from lucency.data.preprocess import full_scale, stored
from lucency.records import Box, Image


class FourierTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "fourier"`.

    alpha: share of the other picture's amplitudes (0 = nothing changes). beta: half the side of the
    square of low frequencies, fraction of the image's side. seed: draws the other picture.
    """

    kind: Literal["fourier"] = "fourier"
    alpha: float = Field(default=0.15, ge=0, le=1)
    beta: float = Field(default=0.1, gt=0, le=0.5)
    seed: int = Field(default=0, ge=0, lt=2**31)

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the amplitudes mixed in."""
        shape = (image.shape[0], image.shape[1])
        spectrum = rfft2(image.astype(np.float32))
        rows, columns = _low(shape, self.beta)
        low = spectrum[np.ix_(rows, columns)]
        other = _amplitude(self.seed, shape)[np.ix_(rows, columns)] * full_scale(image.dtype)
        amplitude = np.abs(low)
        mixed = (1 - self.alpha) * amplitude + self.alpha * other
        # A phase of nothing is 0.
        phase = np.where(amplitude > 0, low / np.maximum(amplitude, 1e-12), 1)
        spectrum[np.ix_(rows, columns)] = mixed * phase
        return stored(irfft2(spectrum, s=shape).astype(np.float64), image)

    def describe(self) -> str:
        """In words, for the report."""
        return (
            f"Fourier amplitudes of another picture, share {self.alpha:g}, frequencies up to "
            f"{self.beta:g} of the side, picture seed {self.seed}"
        )


def _low(shape: tuple[int, int], beta: float) -> tuple[npt.NDArray[np.int64], ...]:
    """The rows and columns of the half spectrum with low frequencies."""
    half = max(1, int(beta * min(shape)))
    frequency = np.abs(np.fft.fftfreq(shape[0], 1 / shape[0]))
    return np.flatnonzero(frequency <= half), np.arange(min(half, shape[1] // 2) + 1)


# Most data sets have films of one size.
@lru_cache(maxsize=4)
def _amplitude(seed: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    pattern = BlendedTrigger(seed=seed).pattern(shape).astype(np.float32)
    return np.asarray(np.abs(rfft2(pattern)), dtype=np.float32)
