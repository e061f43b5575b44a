"""What every published detector of triggered images is turned into."""

from __future__ import annotations

from collections.abc import Callable

from lucency.records import Float64Array, NetworkInputs
from lucency.victims.victim import Victim

Suspicion = Callable[[NetworkInputs], Float64Array]
"""Images (N, size, size) -> (N,) float64, larger = more suspicious; an image's score does not
depend on the other images."""

Fit = Callable[[Victim, NetworkInputs, int], Suspicion]
"""(victim, clean reference images (n, size, size), seed) -> the detector for this victim. The
reference may be empty only for a detector that needs none; otherwise DataError."""
