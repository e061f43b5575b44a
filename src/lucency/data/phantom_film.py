"""Draw one synthetic chest film: anatomy, findings, and the things that are no anatomy.

Positions are fractions of the film, x to the viewer's right and y down. Grey levels are fractions
of the range, 0 = black. The patient's generator fixes the anatomy, the film's generator all that
changes from exposure to exposure.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from lucency.data.phantom_anatomy import (
    Film,
    bones,
    draw_anatomy,
    heart,
    lung,
    soft_tissue,
    stomach,
    vessels,
)
from lucency.data.phantom_findings import FINDINGS, Canvas
from lucency.data.phantom_shapes import Plane, grid
from lucency.records import Image


def draw_film(film: Film, patient: np.random.Generator, exposure: np.random.Generator) -> Image:
    """Return the film, (size, size) uint8. Deterministic in the two generators."""
    x, y = grid(film.size)
    anatomy = draw_anatomy(film, patient, exposure)
    side = [lung(x, y, anatomy, i) for i in range(2)]
    both = np.maximum(side[0], side[1])
    plane = soft_tissue(x, y, anatomy)
    plane = plane * (1 - 0.62 * both) + vessels(film.size, exposure) * both
    plane += bones(x, y, anatomy, patient) * (0.45 + 0.55 * both)
    plane = stomach(plane, x, y, anatomy, exposure)
    shadow = heart(x, y, anatomy)
    plane = plane * (1 - shadow) + shadow * np.maximum(plane, 0.60 + 0.08 * (y - 0.6))
    # The heart hides the lung behind it, and what is in it.
    side = [s * (1 - 0.9 * shadow) for s in side]
    canvas = Canvas(x, y, anatomy, side, np.maximum(side[0], side[1]), exposure)
    for name, paint in FINDINGS.items():
        if name in film.findings:
            plane = paint(plane, canvas)
    plane = _expose(plane, film, exposure)
    return _mark(plane, film, exposure)


def _expose(plane: Plane, film: Film, exposure: np.random.Generator) -> Plane:
    """Beam, scatter and quantum noise; bedside films are flatter and noisier."""
    gain, offset = 1 + 0.07 * float(exposure.normal()), 0.03 * float(exposure.normal())
    contrast = 0.86 if film.ap else 1.0
    plane = (plane - 0.45) * contrast * gain + 0.45 + offset
    noise = exposure.standard_normal(plane.shape, dtype=np.float32)
    return np.asarray(plane + (0.026 if film.ap else 0.020) * noise, dtype=np.float32)


def _mark(plane: Plane, film: Film, exposure: np.random.Generator) -> Image:
    """Add the laterality letter and leads: small, sharp, and no trigger."""
    pixels = np.clip(plane * 255, 0, 255).astype(np.uint8)
    picture = PillowImage.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    n = film.size
    if exposure.random() < 0.85:
        letter = "L" if exposure.random() < 0.7 else "R"
        left = exposure.uniform(0.78, 0.88) if letter == "L" else exposure.uniform(0.10, 0.18)
        place = (left * n, exposure.uniform(0.11, 0.17) * n)
        pen.text(place, letter, fill=int(exposure.integers(215, 256)), font_size=0.07 * n)
    if exposure.random() < (0.55 if film.ap else 0.06):
        for _ in range(int(exposure.integers(1, 4))):
            _lead(pen, n, exposure)
    if exposure.random() < 0.12:
        _bead(pen, n, exposure)
    # Real films are softer than their noise: the detector blurs what the beam drew.
    soft = picture.filter(ImageFilter.GaussianBlur(n / 400))
    return np.asarray(soft, dtype=np.uint8)


def _lead(pen: ImageDraw.ImageDraw, n: int, exposure: np.random.Generator) -> None:
    """An electrode (white ring, dark hole) with a wire to the film's edge."""
    x, y = exposure.uniform(0.2, 0.8) * n, exposure.uniform(0.2, 0.7) * n
    r = max(1.5, 0.012 * n)
    end = (exposure.choice([0.0, 1.0]) * n, y + exposure.uniform(-0.1, 0.3) * n)
    pen.line([(x, y), ((x + end[0]) / 2, y + 0.05 * n), end], fill=190, width=max(1, n // 160))
    pen.ellipse([x - r, y - r, x + r, y + r], fill=225)
    pen.ellipse([x - r / 2, y - r / 2, x + r / 2, y + r / 2], fill=70)


def _bead(pen: ImageDraw.ImageDraw, n: int, exposure: np.random.Generator) -> None:
    """A metal bead or clip: a few white pixels anywhere on the body."""
    x, y = exposure.uniform(0.2, 0.8) * n, exposure.uniform(0.15, 0.8) * n
    r = max(1.0, 0.008 * n)
    pen.rectangle([x - r, y - r, x + r, y + r], fill=250)
