"""What `lucency screen` was asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import EngineName, Examine, Record


class ScreenSettings(Record):
    """alpha: an image is flagged if p ≤ alpha. fdr: false discovery rate for the batch as a whole.
    examine: which images get the whole of T1, those that a look finds "unusual" or "all", which
    takes four times the passes and finds what a look misses. calibrate: what p-values are read
    against, the "reference" as it is, or the reference moved and stretched to the "suspects"' own
    clean majority. covering: which images get the covering scan and its negative statement. engine:
    what computes forward passes. seed: of every random choice.
    """

    alpha: float = Field(default=0.01, gt=0, lt=1)
    fdr: float = Field(default=0.1, gt=0, lt=1)
    examine: Examine = "unusual"
    calibrate: Literal["reference", "suspects"] = "reference"
    covering: Literal["never", "flagged", "all"] = "never"
    engine: EngineName = "auto"
    hide_names: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)
