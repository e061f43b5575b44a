"""What `lucency audit` was asked."""

from __future__ import annotations

from pydantic import Field, field_validator

from lucency.detect.models import DEFAULT, TESTS
from lucency.records import EngineName, Record


class AuditSettings(Record):
    """alpha: a finding is named if p ≤ alpha. films: at most so many clean films are used, one a
    patient. tests: names of `TESTS`. engine: what computes passes without gradients. seed: of every
    random choice."""

    alpha: float = Field(default=0.01, gt=0, lt=1)
    films: int = Field(default=64, ge=16, le=256)
    tests: tuple[str, ...] = Field(default=DEFAULT, min_length=1)
    engine: EngineName = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("tests")
    @classmethod
    def _known(cls, tests: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in tests if name not in TESTS]
        if unknown:
            raise ValueError(f"must be of {', '.join(TESTS)}, got {unknown[0]!r}")
        # In the table's order, so that the order of asking does not make another audit.
        return tuple(name for name in TESTS if name in tests)
