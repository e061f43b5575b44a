"""How each of the 14 findings looks on a phantom film: one function a finding, and their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lucency.data.phantom_anatomy import Anatomy
from lucency.data.phantom_shapes import Plane, ellipse, noise, sigmoid


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
    return ellipse(c.x, c.y, (centre[0], centre[1], a, b), soft)


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
    fluid = sigmoid((c.y - level + 0.05 * np.maximum(outward, -0.5)) / 0.012)
    fluid = fluid * c.side[side]
    return np.asarray(plane * (1 - fluid) + fluid * np.maximum(plane, 0.56), dtype=np.float32)


def infiltration(plane: Plane, c: Canvas) -> Plane:
    """Patchy, ill-defined mottling."""
    mottle = np.clip(noise(plane.shape[0], 0.045, c.exposure), 0, None)
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
    collapsed = ellipse(c.x, c.y, inner, 0.008)
    air = c.side[side] * (1 - collapsed)
    line = 4 * collapsed * (1 - collapsed) * c.side[side]
    return np.asarray(plane * (1 - 0.75 * air) + 0.02 * air + 0.12 * line, dtype=np.float32)


def consolidation(plane: Plane, c: Canvas) -> Plane:
    """A dense, even opacity with a straight fissure as its upper border."""
    side = c.pick()
    centre = c.spot(side, 0.5, 0.85)
    patch = _blob(c, centre, 0.11, 0.12, 0.02) * sigmoid((c.y - centre[1] + 0.05) / 0.006)
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
    base = sigmoid((c.y - 0.50) / 0.03) * c.lung
    lines: Plane = c.strength(0.16, 0.28) * net * base
    return plane + lines


def pleural_thickening(plane: Plane, c: Canvas) -> Plane:
    """A white rim along the chest wall and over one apex."""
    side = c.pick()
    cx, cy, a, b = c.anatomy.lungs[side]
    outer = (c.x - cx) * (1 if side else -1) > -0.3 * a
    thick = c.strength(0.10, 0.20)
    core = ellipse(c.x, c.y, (cx, cy, a * (1 - thick), b * (1 - thick)), 0.015)
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
