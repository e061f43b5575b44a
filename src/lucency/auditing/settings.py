"""What `lucency audit` was asked."""

from __future__ import annotations

from pydantic import Field

from lucency.records import EngineName, Record


class AuditSettings(Record):
    """alpha: there is evidence if p ≤ alpha. films: at most so many clean films are used, one a
    patient. engine: what computes passes without gradients. seed: of every random choice."""

    alpha: float = Field(default=0.01, gt=0, lt=1)
    films: int = Field(default=64, ge=16, le=256)
    engine: EngineName = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)
