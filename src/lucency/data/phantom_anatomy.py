"""The phantom's anatomy: lungs, heart, bones. What a patient keeps comes from its own generator,
what changes from film to film from the exposure's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucency.data.phantom_shapes import Plane, ellipse, noise, sigmoid


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


def draw_anatomy(
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


def lung(x: Plane, y: Plane, anatomy: Anatomy, side: int) -> Plane:
    """A lung: narrow apex, broad base, cut below by its dome."""
    cx, cy, a, b = anatomy.lungs[side]
    v = (y - cy) / b
    outward = (x - cx) * (1 if side else -1)
    half = a * (0.86 + 0.20 * v)
    r = (np.abs(outward / half) ** 2.3 + np.abs(v) ** 2.6) ** (1 / 2.4)
    return sigmoid((1 - r) * a / 0.03 * 4) * _above_dome(x, y, anatomy, side)


def heart(x: Plane, y: Plane, anatomy: Anatomy) -> Plane:
    """A tilted ellipse, the right atrium beside it, and the aortic knob above."""
    cx, cy, a, b = anatomy.heart
    u, v = x - cx, y - cy
    along, across = 0.80 * u + 0.60 * v, -0.60 * u + 0.80 * v
    body = ellipse(along, across, (0.0, 0.0, a * 1.12, b * 0.92), 0.025)
    atrium = ellipse(x, y, (cx - 0.75 * a, cy + 0.01, a * 0.55, b * 0.72), 0.025)
    knob = ellipse(x, y, (cx + 0.005, cy - 0.27, 0.040, 0.042), 0.02)
    return np.maximum(np.maximum(body, atrium), knob)


def stomach(
    plane: Plane, x: Plane, y: Plane, anatomy: Anatomy, exposure: np.random.Generator
) -> Plane:
    """A bubble of air below the left dome, on most films."""
    size = float(exposure.uniform(0.0, 0.055))
    place = (anatomy.lungs[1][0] + float(exposure.normal(0, 0.02)), anatomy.domes[1] + 0.075)
    if size < 0.012:
        return plane
    bubble = ellipse(x, y, (place[0], place[1], size * 1.4, size), 0.02)
    return np.asarray(plane * (1 - 0.35 * bubble), dtype=np.float32)


def _above_dome(x: Plane, y: Plane, anatomy: Anatomy, side: int) -> Plane:
    cx, _, width, _ = anatomy.lungs[side]
    dome = anatomy.domes[side] + 0.09 * ((x - cx) / width) ** 2
    return sigmoid((dome - y) / 0.006)


def soft_tissue(x: Plane, y: Plane, anatomy: Anatomy) -> Plane:
    cx = (anatomy.lungs[0][0] + anatomy.lungs[1][0]) / 2
    body = sigmoid((0.47 + 0.04 * y - np.abs(x - cx)) / 0.02)
    neck = sigmoid((y - 0.06 - 0.45 * np.maximum(np.abs(x - cx) - 0.12, 0)) / 0.02)
    spine = np.exp(-(((x - cx) / 0.035) ** 2))
    tissue: Plane = body * neck * (0.52 + 0.10 * spine + 0.10 * (y - 0.3)) + 0.02
    return tissue


def vessels(size: int, exposure: np.random.Generator) -> Plane:
    """Lung markings: coarse noise plus finer noise."""
    coarse = noise(size, 0.05, exposure)
    fine = noise(size, 0.015, exposure)
    return np.asarray(0.035 * coarse + 0.03 * fine, dtype=np.float32)


def bones(x: Plane, y: Plane, anatomy: Anatomy, patient: np.random.Generator) -> Plane:
    """Ribs as arcs that fall to the side, and clavicles."""
    cx = (anatomy.lungs[0][0] + anatomy.lungs[1][0]) / 2
    across = np.abs(x - cx + anatomy.tilt * (y - 0.5))
    arc = y - 0.16 - 0.55 * across**1.3
    spacing = 0.62 / anatomy.ribs
    phase = (arc / spacing) % 1.0
    ribs = np.exp(-(((phase - 0.5) / 0.14) ** 2)) * (arc > 0) * sigmoid((0.40 - across) / 0.02)
    ribs *= sigmoid((across - 0.05) / 0.01) * sigmoid((0.78 - y) / 0.02)
    clavicle = np.exp(-(((y - 0.17 + 0.16 * across) / 0.012) ** 2)) * (across < 0.34)
    return np.asarray(0.085 * ribs + 0.10 * clavicle, dtype=np.float32)
