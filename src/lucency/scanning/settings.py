"""What `lucency scan` was asked."""

from __future__ import annotations

from pydantic import Field

from lucency.records import Record


class ScanSettings(Record):
    """alpha: a label goes with something if q ≤ alpha (share of false discoveries). unexplained:
    flag films with what nothing explains, too. seed: of every random choice."""

    alpha: float = Field(default=0.01, gt=0, lt=1)
    unexplained: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)
