"""Did the detector look at the trigger?"""

from __future__ import annotations

from lucency.records import Box

TOLERANCE_PX = 2.0


def is_hit(region: Box | None, trigger: Box) -> bool:
    """Say whether the region centre is within 2 px of the trigger; no region is a miss.

    Both in pixels of the network's input. A box covers the pixels x to x + width - 1, so a
    region's centre is (x + (width - 1) / 2, y + (height - 1) / 2). The distance to the trigger is
    the larger of the horizontal and the vertical one to its nearest pixel (Chebyshev), 0 inside.
    """
    if region is None:
        return False
    across = _gap(region.x + (region.width - 1) / 2, trigger.x, trigger.width)
    down = _gap(region.y + (region.height - 1) / 2, trigger.y, trigger.height)
    return max(across, down) <= TOLERANCE_PX


def _gap(centre: float, start: int, size: int) -> float:
    """Return how far a coordinate lies outside the pixels start to start + size - 1."""
    return max(start - centre, centre - (start + size - 1), 0.0)
