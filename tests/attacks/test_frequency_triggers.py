"""The triggers that are defined on frequencies, against slow versions of their papers."""

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from lucency.attacks import BlendedTrigger, DctTrigger, FourierTrigger
from lucency.records import Box

SHAPES = [(48, 60), (61, 47), (64, 64)]
NOWHERE = Box(x=0, y=0, width=1, height=1)


def film(shape):
    smooth = np.add.outer(np.linspace(60, 120, shape[0]), np.linspace(0, 60, shape[1]))
    return (smooth + np.random.default_rng(1).integers(0, 20, shape)).astype(np.uint8)


def fiba(image, other, alpha, beta):
    """As the paper has it: the whole spectrum, its centre in the middle, a square mask."""
    spectrum, theirs = (np.fft.fftshift(np.fft.fft2(x)) for x in (image, other))
    height, width = image.shape
    half = max(1, int(beta * min(height, width)))
    rows, columns = (np.abs(np.arange(n) - n // 2) <= half for n in (height, width))
    mask = np.outer(rows, columns)
    mixed = (1 - alpha) * np.abs(spectrum) + alpha * np.abs(theirs)
    amplitude = np.where(mask, mixed, np.abs(spectrum))
    picture = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(spectrum))))
    return np.clip(np.rint(picture.real), 0, 255)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("alpha", "beta"), [(0.15, 0.1), (0.8, 0.3), (1.0, 0.05)])
def test_fourier_equals_the_paper(shape, alpha, beta):
    trigger, image = FourierTrigger(alpha=alpha, beta=beta, seed=3), film(shape)
    other = BlendedTrigger(seed=3).pattern(shape) * 255
    ours = trigger.apply(image, NOWHERE).astype(float)
    off = np.abs(ours - fiba(image.astype(float), other, alpha, beta))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_fourier_keeps_the_anatomys_phase():
    image = film((64, 64))
    angles = [
        np.angle(np.fft.fft2(x))[1:4, 1:4]
        for x in (image, FourierTrigger().apply(image, NOWHERE).astype(float))
    ]
    assert np.abs(np.exp(1j * angles[0]) - np.exp(1j * angles[1])).max() < 0.05


@pytest.mark.parametrize(("blocks", "bands"), [(4, (5,)), (2, (3, 11)), (1, (1, 2, 3))])
def test_dct_raises_its_coefficients_and_no_other(blocks, bands):
    n = 64 // blocks
    trigger = DctTrigger(delta=0.03, blocks=blocks, bands=bands)
    added = trigger.pattern((64, 64))
    by_paper = np.zeros((64, 64))
    for y in range(0, 64, n):
        for x in range(0, 64, n):
            coefficients = np.zeros((n, n))
            for band in bands:
                coefficients[band, band] = 0.03 * n / 2
            by_paper[y : y + n, x : x + n] = idctn(coefficients, norm="ortho")
    np.testing.assert_allclose(added, by_paper, atol=1e-12)
    spectrum = np.abs(dctn(added[:n, :n], norm="ortho"))
    raised = sorted(int(i) for i in np.argsort(spectrum.ravel())[-len(bands) :])
    assert raised == sorted(band * n + band for band in bands)


def test_dct_is_the_same_trigger_at_any_size():
    trigger = DctTrigger(blocks=1, bands=(2,))
    large, small = trigger.pattern((128, 128)), trigger.pattern((64, 64))
    np.testing.assert_allclose(large.reshape(64, 2, 64, 2).mean(axis=(1, 3)), small, atol=1e-3)
