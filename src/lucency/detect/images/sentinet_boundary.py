"""SentiNet's decision boundary: the outline of clean films in the plane of its two features.

Chou et al. 2020 (arXiv 1812.00292), algorithm 4: the clean films that fool most in each interval of
confidence, a quadratic curve through them, and by how much clean films overstep it on average. The
paper measures the distance to the curve with COBYLA; here it is the root of a cubic, exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lucency.records import Float64Array


@dataclass(frozen=True)
class Curve:
    """The outline of clean films: `coefficients` of a polynomial in the confidence, highest power
    first; its range on clean films; `tolerance`: how far clean films overstep it on average."""

    coefficients: tuple[float, ...]
    low: float
    high: float
    tolerance: float = 0.0


def draw_curve(
    confidence: Float64Array, fooled: Float64Array, *, interval: float, nearest: bool
) -> Curve:
    """Algorithm 4 from the features of clean films, (n,) each: least squares through the film that
    fools most in each interval of confidence; a line or a constant through fewer than 3 of them."""
    interval_of = np.floor(confidence / interval).astype(int)
    outline = np.array(
        [
            members[fooled[members].argmax()]
            for members in (np.flatnonzero(interval_of == i) for i in np.unique(interval_of))
        ]
    )
    x, y = confidence[outline], fooled[outline]
    coefficients = np.polyfit(x, y, min(2, len(outline) - 1))
    curve = Curve(tuple(map(float, coefficients)), float(x.min()), float(x.max()))
    distance = overstep(curve, confidence, fooled, nearest=nearest)
    above = distance[distance > 0]
    return replace(curve, tolerance=float(above.mean()) if len(above) else 0.0)


def overstep(
    curve: Curve, confidence: Float64Array, fooled: Float64Array, *, nearest: bool
) -> Float64Array:
    """How far a film lies outside the clean outline, same shape, negative inside: to the nearest
    point of the curve, as published; else straight down to it, inside the clean confidences."""
    if not nearest:
        within = np.clip(confidence, curve.low, curve.high)
        gap: Float64Array = fooled - np.polyval(curve.coefficients, within)
        return gap
    below = np.polyval(curve.coefficients, confidence)
    distances = [
        nearest_distance(curve.coefficients, x, y)
        for x, y in zip(confidence.flat, fooled.flat, strict=True)
    ]
    signed: Float64Array = np.sign(fooled - below) * np.reshape(distances, fooled.shape)
    return signed


def nearest_distance(coefficients: tuple[float, ...], x: float, y: float) -> float:
    """From a point to the curve y = p(x): p' (p − y) + x' − x vanishes at the nearest point."""
    curve = np.poly1d(coefficients)
    critical = ((curve - y) * curve.deriv() + np.poly1d([1.0, -x])).roots
    at = np.append(critical[np.abs(critical.imag) < 1e-9].real, x)
    return float(np.hypot(at - x, curve(at) - y).min())
