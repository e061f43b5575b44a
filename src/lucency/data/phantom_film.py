"""Draw one synthetic chest film: anatomy, findings, and the things that are no anatomy.

Positions are fractions of the film, x to the viewer's right and y down. Grey levels are fractions
of the range, 0 = black. The patient's generator fixes the anatomy, the film's generator all that
changes from exposure to exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from lucency.records import Image

Plane = npt.NDArray[np.floating[Any]]
"""(size, size) float32."""


@dataclass(frozen=True)
class Film:
    """What a film shows: its size in pixels, its view, and the names of its findings."""

    size: int
    ap: bool
    findings: frozenset[str]


@dataclass(frozen=True)
class Anatomy:
    """One patient on one film. Lungs are ellipses (centre x, centre y, half width, half height)."""

    lungs: tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
    heart: tuple[float, float, float, float]
    domes: tuple[float, float]
    ribs: int
    tilt: float


def draw_film(film: Film, patient: np.random.Generator, exposure: np.random.Generator) -> Image:
    """Return the film, (size, size) uint8. Deterministic in the two generators."""
    x, y = _grid(film.size)
    anatomy = _draw_anatomy(film, patient, exposure)
    side = [_lung(x, y, anatomy, i) for i in range(2)]
    lung = np.maximum(side[0], side[1])
    plane = _soft_tissue(x, y, anatomy)
    plane = plane * (1 - 0.62 * lung) + _vessels(film.size, exposure) * lung
    plane += _bones(x, y, anatomy, patient) * (0.45 + 0.55 * lung)
    plane = _stomach(plane, x, y, anatomy, exposure)
    heart = _heart(x, y, anatomy)
    plane = plane * (1 - heart) + heart * np.maximum(plane, 0.60 + 0.08 * (y - 0.6))
    # The heart hides the lung behind it, and what is in it.
    side = [s * (1 - 0.9 * heart) for s in side]
    canvas = Canvas(x, y, anatomy, side, np.maximum(side[0], side[1]), exposure)
    for name, paint in FINDINGS.items():
        if name in film.findings:
            plane = paint(plane, canvas)
    plane = _expose(plane, film, exposure)
    return _mark(plane, film, exposure)


# --- anatomy ------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Plane, Plane]:
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _draw_anatomy(
    film: Film, patient: np.random.Generator, exposure: np.random.Generator
) -> Anatomy:
    # Python floats: a NumPy scalar would widen every float32 plane that it meets to float64.
    p, e = patient.normal(size=12).tolist(), exposure.normal(size=8).tolist()
    width, height = 0.170 + 0.010 * p[0], 0.31 + 0.018 * p[1]
    cx, cy = 0.5 + 0.012 * e[0], 0.45 + 0.015 * e[1]
    gap = 0.195 + 0.008 * p[2]
    domes = [0.715 + 0.014 * p[3] + 0.012 * e[2], 0.735 + 0.014 * p[4] + 0.012 * e[2]]
    heart = 0.120 + 0.010 * p[5] + (0.012 if film.ap else 0.0)
    if film.ap:
        height, domes = height * 0.94, [d - 0.03 for d in domes]
    if "Emphysema" in film.findings:
        width, height, heart = width * 1.06, height * 1.08, heart * 0.88
        domes = [d + 0.04 for d in domes]
    if "Cardiomegaly" in film.findings:
        heart *= 1.22 + 0.25 * float(exposure.random())
    if "Atelectasis" in film.findings:
        lost = int(exposure.integers(2))
        domes[lost] -= 0.035 + 0.02 * float(exposure.random())
    return Anatomy(
        lungs=((cx - gap, cy, width, height), (cx + gap, cy, width, height)),
        heart=(cx + 0.035, 0.60 + 0.01 * p[6], heart, 0.135 + 0.008 * p[7]),
        domes=(domes[0], domes[1]),
        ribs=int(8 + patient.integers(2)),
        tilt=0.02 * p[8],
    )


def _sigmoid(t: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -30, 30))), dtype=np.float32)


def _ellipse(x: Plane, y: Plane, shape: tuple[float, float, float, float], soft: float) -> Plane:
    """1 inside, 0 outside, with an edge about `soft` wide."""
    cx, cy, a, b = shape
    r = np.sqrt(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2)
    return _sigmoid((1 - r) * min(a, b) / soft * 4)


def _lung(x: Plane, y: Plane, anatomy: Anatomy, side: int) -> Plane:
    """A lung: narrow apex, broad base, cut below by its dome."""
    cx, cy, a, b = anatomy.lungs[side]
    v = (y - cy) / b
    outward = (x - cx) * (1 if side else -1)
    half = a * (0.86 + 0.20 * v)
    r = (np.abs(outward / half) ** 2.3 + np.abs(v) ** 2.6) ** (1 / 2.4)
    return _sigmoid((1 - r) * a / 0.03 * 4) * _above_dome(x, y, anatomy, side)


def _heart(x: Plane, y: Plane, anatomy: Anatomy) -> Plane:
    """A tilted ellipse, the right atrium beside it, and the aortic knob above."""
    cx, cy, a, b = anatomy.heart
    u, v = x - cx, y - cy
    along, across = 0.80 * u + 0.60 * v, -0.60 * u + 0.80 * v
    body = _ellipse(along, across, (0.0, 0.0, a * 1.12, b * 0.92), 0.025)
    atrium = _ellipse(x, y, (cx - 0.75 * a, cy + 0.01, a * 0.55, b * 0.72), 0.025)
    knob = _ellipse(x, y, (cx + 0.005, cy - 0.27, 0.040, 0.042), 0.02)
    return np.maximum(np.maximum(body, atrium), knob)


def _stomach(
    plane: Plane, x: Plane, y: Plane, anatomy: Anatomy, exposure: np.random.Generator
) -> Plane:
    """A bubble of air below the left dome, on most films."""
    size = float(exposure.uniform(0.0, 0.055))
    place = (anatomy.lungs[1][0] + float(exposure.normal(0, 0.02)), anatomy.domes[1] + 0.075)
    if size < 0.012:
        return plane
    bubble = _ellipse(x, y, (place[0], place[1], size * 1.4, size), 0.02)
    return np.asarray(plane * (1 - 0.35 * bubble), dtype=np.float32)


def _above_dome(x: Plane, y: Plane, anatomy: Anatomy, side: int) -> Plane:
    cx, _, width, _ = anatomy.lungs[side]
    dome = anatomy.domes[side] + 0.09 * ((x - cx) / width) ** 2
    return _sigmoid((dome - y) / 0.006)


def _soft_tissue(x: Plane, y: Plane, anatomy: Anatomy) -> Plane:
    cx = (anatomy.lungs[0][0] + anatomy.lungs[1][0]) / 2
    body = _sigmoid((0.47 + 0.04 * y - np.abs(x - cx)) / 0.02)
    neck = _sigmoid((y - 0.06 - 0.45 * np.maximum(np.abs(x - cx) - 0.12, 0)) / 0.02)
    spine = np.exp(-(((x - cx) / 0.035) ** 2))
    tissue: Plane = body * neck * (0.52 + 0.10 * spine + 0.10 * (y - 0.3)) + 0.02
    return tissue


def _vessels(size: int, exposure: np.random.Generator) -> Plane:
    """Lung markings: coarse noise plus finer noise."""
    coarse = _noise(size, 0.05, exposure)
    fine = _noise(size, 0.015, exposure)
    return np.asarray(0.035 * coarse + 0.03 * fine, dtype=np.float32)


def _noise(size: int, scale: float, generator: np.random.Generator) -> Plane:
    """Smooth noise of about unit variance; `scale` is its grain as a fraction of the film."""
    n = max(4, round(1 / scale))
    small = generator.standard_normal((n, n), dtype=np.float32)
    field = PillowImage.fromarray(small).resize((size, size), PillowImage.Resampling.BILINEAR)
    return np.asarray(field, dtype=np.float32) / 0.66


def _bones(x: Plane, y: Plane, anatomy: Anatomy, patient: np.random.Generator) -> Plane:
    """Ribs as arcs that fall to the side, and clavicles."""
    cx = (anatomy.lungs[0][0] + anatomy.lungs[1][0]) / 2
    across = np.abs(x - cx + anatomy.tilt * (y - 0.5))
    arc = y - 0.16 - 0.55 * across**1.3
    spacing = 0.62 / anatomy.ribs
    phase = (arc / spacing) % 1.0
    ribs = np.exp(-(((phase - 0.5) / 0.14) ** 2)) * (arc > 0) * _sigmoid((0.40 - across) / 0.02)
    ribs *= _sigmoid((across - 0.05) / 0.01) * _sigmoid((0.78 - y) / 0.02)
    clavicle = np.exp(-(((y - 0.17 + 0.16 * across) / 0.012) ** 2)) * (across < 0.34)
    return np.asarray(0.085 * ribs + 0.10 * clavicle, dtype=np.float32)


def _expose(plane: Plane, film: Film, exposure: np.random.Generator) -> Plane:
    """Beam, scatter and quantum noise; bedside films are flatter and noisier."""
    gain, offset = 1 + 0.07 * float(exposure.normal()), 0.03 * float(exposure.normal())
    contrast = 0.86 if film.ap else 1.0
    plane = (plane - 0.45) * contrast * gain + 0.45 + offset
    noise = exposure.standard_normal(plane.shape, dtype=np.float32)
    return np.asarray(plane + (0.026 if film.ap else 0.020) * noise, dtype=np.float32)


# --- findings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canvas:
    """What a finding needs to draw itself: the grid, the anatomy and the lungs' masks."""

    x: Plane
    y: Plane
    anatomy: Anatomy
    side: list[Plane]
    lung: Plane
    exposure: np.random.Generator

    def pick(self) -> int:
        return int(self.exposure.integers(2))

    def strength(self, low: float, high: float) -> float:
        return float(self.exposure.uniform(low, high))

    def spot(self, side: int, upper: float, lower: float) -> tuple[float, float]:
        """A point inside one lung, between two heights (fractions of the lung, 0 = apex)."""
        cx, cy, a, b = self.anatomy.lungs[side]
        bottom = min(cy + b, self.anatomy.domes[side])
        v = self.strength(upper, lower)
        return cx + a * self.strength(-0.5, 0.5), (cy - b) + v * (bottom - cy + b)


def _blob(c: Canvas, centre: tuple[float, float], a: float, b: float, soft: float) -> Plane:
    return _ellipse(c.x, c.y, (centre[0], centre[1], a, b), soft)


def atelectasis(plane: Plane, c: Canvas) -> Plane:
    """Plate-like bands above a raised dome; the dome itself is raised with the anatomy."""
    lost = int(np.argmin(c.anatomy.domes))
    for _ in range(int(c.exposure.integers(2, 4))):
        px, py = c.spot(lost, 0.68, 0.92)
        slope = c.strength(-0.25, 0.25)
        band = np.exp(-(((c.y - py - slope * (c.x - px)) / 0.011) ** 2))
        band *= np.exp(-(((c.x - px) / 0.10) ** 2))
        plane = plane + c.strength(0.12, 0.26) * band * c.lung
    return plane


def cardiomegaly(plane: Plane, c: Canvas) -> Plane:
    """Drawn with the anatomy: the heart is wider."""
    return plane


def effusion(plane: Plane, c: Canvas) -> Plane:
    """A dense meniscus that fills the lung from below and climbs at the side."""
    side = c.pick()
    cx, _, width, _ = c.anatomy.lungs[side]
    level = c.anatomy.domes[side] - c.strength(0.03, 0.18)
    outward = (c.x - cx) / width * (1 if side else -1)
    fluid = _sigmoid((c.y - level + 0.05 * np.maximum(outward, -0.5)) / 0.012)
    fluid = fluid * c.side[side]
    return np.asarray(plane * (1 - fluid) + fluid * np.maximum(plane, 0.56), dtype=np.float32)


def infiltration(plane: Plane, c: Canvas) -> Plane:
    """Patchy, ill-defined mottling."""
    mottle = np.clip(_noise(plane.shape[0], 0.045, c.exposure), 0, None)
    centre = c.spot(c.pick(), 0.3, 0.85)
    reach = _blob(c, centre, c.strength(0.12, 0.24), c.strength(0.14, 0.26), 0.06)
    return plane + c.strength(0.10, 0.24) * mottle * reach * c.lung


def mass(plane: Plane, c: Canvas) -> Plane:
    """A round opacity of more than 3 cm."""
    r = c.strength(0.045, 0.075)
    return plane + c.strength(0.16, 0.30) * _blob(c, c.spot(c.pick(), 0.2, 0.8), r, r, 0.012)


def nodule(plane: Plane, c: Canvas) -> Plane:
    """One to three round opacities of less than 3 cm."""
    for _ in range(int(c.exposure.integers(1, 4))):
        r = c.strength(0.016, 0.027)
        spot = c.spot(c.pick(), 0.15, 0.85)
        plane = plane + c.strength(0.18, 0.32) * _blob(c, spot, r, r, 0.008)
    return plane


def pneumonia(plane: Plane, c: Canvas) -> Plane:
    """A lobar opacity with a soft border and branching air."""
    centre = c.spot(c.pick(), 0.45, 0.8)
    patch = _blob(c, centre, 0.10, 0.11, 0.05)
    air = np.abs(np.sin((c.x - centre[0] + 0.7 * (c.y - centre[1])) * 95)) > 0.93
    opacity: Plane = c.strength(0.18, 0.28) * patch * c.lung * (1 - 0.55 * air)
    return plane + opacity


def pneumothorax(plane: Plane, c: Canvas) -> Plane:
    """A black crescent without markings at the apex and side, within a thin white line."""
    side = c.pick()
    cx, cy, a, b = c.anatomy.lungs[side]
    depth = c.strength(0.14, 0.34)
    inner = (cx + (-1 if side else 1) * a * depth, cy + b * depth * 0.9, a, b)
    collapsed = _ellipse(c.x, c.y, inner, 0.008)
    air = c.side[side] * (1 - collapsed)
    line = 4 * collapsed * (1 - collapsed) * c.side[side]
    return np.asarray(plane * (1 - 0.75 * air) + 0.02 * air + 0.12 * line, dtype=np.float32)


def consolidation(plane: Plane, c: Canvas) -> Plane:
    """A dense, even opacity with a straight fissure as its upper border."""
    side = c.pick()
    centre = c.spot(side, 0.5, 0.85)
    patch = _blob(c, centre, 0.11, 0.12, 0.02) * _sigmoid((c.y - centre[1] + 0.05) / 0.006)
    patch = patch * c.side[side]
    return np.asarray(plane * (1 - 0.8 * patch) + 0.8 * patch * 0.58, dtype=np.float32)


def edema(plane: Plane, c: Canvas) -> Plane:
    """A haze around both hila, like wings."""
    haze = sum(_blob(c, (lung[0], lung[1] + 0.03), 0.11, 0.16, 0.09) for lung in c.anatomy.lungs)
    lines = 0.5 + 0.5 * (np.sin(c.y * 150) > 0.6)
    return np.asarray(
        plane + c.strength(0.09, 0.22) * np.minimum(haze, 1) * lines * c.lung, dtype=np.float32
    )


def emphysema(plane: Plane, c: Canvas) -> Plane:
    """Blacker lungs; they are also larger, with flat domes and a small heart (anatomy)."""
    return np.asarray(plane * (1 - 0.22 * c.lung), dtype=np.float32)


def fibrosis(plane: Plane, c: Canvas) -> Plane:
    """A net of fine lines at both bases."""
    net = np.abs(np.sin((c.x + 0.6 * c.y) * 130)) * np.abs(np.sin((c.y - 0.5 * c.x) * 120))
    base = _sigmoid((c.y - 0.50) / 0.03) * c.lung
    lines: Plane = c.strength(0.16, 0.28) * net * base
    return plane + lines


def pleural_thickening(plane: Plane, c: Canvas) -> Plane:
    """A white rim along the chest wall and over one apex."""
    side = c.pick()
    cx, cy, a, b = c.anatomy.lungs[side]
    outer = (c.x - cx) * (1 if side else -1) > -0.3 * a
    thick = c.strength(0.10, 0.20)
    core = _ellipse(c.x, c.y, (cx, cy, a * (1 - thick), b * (1 - thick)), 0.015)
    rim = c.side[side] * (1 - core) * outer
    return np.asarray(plane + c.strength(0.20, 0.30) * rim, dtype=np.float32)


def hernia(plane: Plane, c: Canvas) -> Plane:
    """A round shadow above the domes beside the midline, with a bubble of air and a level."""
    cx = (c.anatomy.lungs[0][0] + c.anatomy.lungs[1][0]) / 2 - 0.05
    shell = _blob(c, (cx, 0.66), 0.085, 0.075, 0.01)
    bubble = _blob(c, (cx, 0.64), 0.06, 0.045, 0.008) * (c.y < 0.655)
    return np.asarray(plane * (1 - 0.7 * shell) + 0.45 * shell - 0.32 * bubble, dtype=np.float32)


FINDINGS: dict[str, Callable[[Plane, Canvas], Plane]] = {
    "Cardiomegaly": cardiomegaly,
    "Emphysema": emphysema,
    "Edema": edema,
    "Infiltration": infiltration,
    "Pneumonia": pneumonia,
    "Fibrosis": fibrosis,
    "Atelectasis": atelectasis,
    "Consolidation": consolidation,
    "Mass": mass,
    "Nodule": nodule,
    "Pleural_Thickening": pleural_thickening,
    "Pneumothorax": pneumothorax,
    "Effusion": effusion,
    "Hernia": hernia,
}
"""In the order in which they are drawn, the diffuse ones first."""


# --- what is no anatomy -------------------------------------------------------------------------


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
