"""What an image-level test measured, before any judgement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lucency.records import Float64Array, IntArray


@dataclass(frozen=True)
class Evidence:
    """Effects of an intervention on N images, in C columns.

    effects (N, C): what an intervention did to a finding's logit; positive = what was taken away
    had raised it. findings (C,): the finding of each column. groups (C,): columns of one number are
    interventions of one kind (a filter's width, a region's size) and share a scale. logits,
    repaired (N, C): of the column's finding, before and after the intervention. boxes (N, C, 4)
    int64: x, y, width, height of the region behind each effect, network pixels; None for a test
    that cannot say where.
    """

    effects: Float64Array
    findings: IntArray
    groups: IntArray
    logits: Float64Array
    repaired: Float64Array
    boxes: IntArray | None = None

    def __len__(self) -> int:
        return len(self.effects)

    def rows(self, rows: IntArray) -> Evidence:
        """The evidence of these images alone."""
        return replace(
            self,
            effects=self.effects[rows],
            logits=self.logits[rows],
            repaired=self.repaired[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
        )


def concatenate(parts: list[Evidence]) -> Evidence:
    """Evidence of several batches as one. At least one part."""
    boxes = [p.boxes for p in parts if p.boxes is not None]
    return Evidence(
        effects=np.concatenate([p.effects for p in parts]),
        findings=parts[0].findings,
        groups=parts[0].groups,
        logits=np.concatenate([p.logits for p in parts]),
        repaired=np.concatenate([p.repaired for p in parts]),
        boxes=np.concatenate(boxes) if boxes else None,
    )
