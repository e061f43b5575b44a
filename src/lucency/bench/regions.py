"""Whether bfloat16 finds the same place: the top regions of two maps of the same film."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import uniform_filter

from lucency.bench.record import Row, at_least, row
from lucency.bench.triggered import TriggeredFilms, maps_of
from lucency.evaluate.localisation import TOLERANCE_PX
from lucency.evaluate.rates import rate
from lucency.explain import Explanation
from lucency.records import FloatArray
from lucency.victims.victim import has_fast_bf16

REGION_PX = 5
SAME = at_least(0.98)


@dataclass
class Agreement:
    """By method: whether bf16 has the same top region, a claim a film; and the films' patients."""

    same: dict[str, list[bool]] = field(default_factory=dict)
    patients: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, case: TriggeredFilms, name: str, method: Explanation, batch: int) -> None:
        """Explain the films in float32 and in bf16; nothing on a device that emulates bf16."""
        if not has_fast_bf16(case.victim.device):
            return
        exact, fast = (
            maps_of(case, name, method, batch=batch, bf16=bf16) for bf16 in (False, True)
        )
        claims = same_regions(exact, fast, case.images.shape[1])
        self.same.setdefault(name, []).extend(claims)
        # Patients of two cases are two patients only if they are called so.
        self.patients.setdefault(name, []).extend(case.patients or ())

    def rows(self, seed: int) -> tuple[Row, ...]:
        """The share of films on which both agree, by method; bar: 98 %."""
        rows = []
        for name, same in self.same.items():
            found = rate(np.array(same), self.patients[name], np.random.default_rng([seed, 0xBF]))
            title = f"{name}: same top region in bf16, of {found.trials} triggered films"
            rows.append(row(title, found.value, low=found.low, high=found.high, bar=SAME))
        return tuple(rows)


def same_regions(maps: FloatArray, others: FloatArray, size: int) -> list[bool]:
    """Whether two maps (h, w) of the same image have the same top region, N claims.

    The top region is the square of about 5 × 5 pixels of the image, at least one cell, with the
    largest positive mass; it is the same if its centre moved by at most 2 pixels or one cell. Two
    maps without any positive value agree, one with and one without do not.
    """
    return [_is_same(a, b, size) for a, b in zip(maps, others, strict=True)]


def _is_same(cells: FloatArray, other: FloatArray, size: int) -> bool:
    pixels = size / cells.shape[0]
    places = [_top(m, max(1, round(REGION_PX / pixels))) for m in (cells, other)]
    if places[0] is None or places[1] is None:
        return places[0] is places[1]
    moved = max(abs(a - b) for a, b in zip(*places, strict=True)) * pixels
    return bool(moved <= max(TOLERANCE_PX, pixels))


def _top(cells: FloatArray, side: int) -> tuple[int, int] | None:
    mass = uniform_filter(np.maximum(cells, 0).astype(np.float64), side, mode="constant")
    if not np.isfinite(mass).all() or mass.max() <= 0:
        return None
    row, column = np.unravel_index(int(mass.argmax()), mass.shape)
    return int(row), int(column)
