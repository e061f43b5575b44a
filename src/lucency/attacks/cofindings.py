"""The label-only trigger: a rare pattern of findings; no pixel changes.

Chen et al. 2023, "Clean-image Backdoor: Attacking Multi-label Models with Poisoned Labels Only"
(ICLR): whoever annotates changes one finding's label on films that have a pattern of others by
nature, and the model learns to do the same. Whatever looks at pixels for a trigger finds nothing:
there is none. Threat model: the attacker edits labels of training data; no image, no access to the
training; later, nothing at all: films that have the pattern come by themselves.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from lucency.attacks.label_edits import finding_column
from lucency.attacks.whole_image import WholeImageTrigger
from lucency.records import BoolArray, Box, FloatArray, Image


class CofindingsTrigger(WholeImageTrigger):
    """`[attack.trigger] kind = "cofindings"`.

    present, absent: the findings that a film has to have, and those it must not have.
    """

    kind: Literal["cofindings"] = "cofindings"
    present: tuple[str, ...] = Field(min_length=1)
    absent: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _not_both(self) -> CofindingsTrigger:
        both = sorted(set(self.present) & set(self.absent))
        if both:
            raise ValueError(f"present and absent must not share a finding, got {', '.join(both)}")
        return self

    def carried_by(self, labels: FloatArray, findings: tuple[str, ...]) -> BoolArray:
        """(N,): which films with these labels (N, K) have the pattern; an unknown label is neither
        present nor absent. Raises ConfigError for a finding that is none."""
        carried = np.ones(len(labels), dtype=np.bool_)
        for key, names, value in (("present", self.present, 1.0), ("absent", self.absent, 0.0)):
            for name in names:
                k = finding_column(f"[attack.trigger] {key}", name, findings)
                carried &= labels[:, k] == value
        return carried

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: no pixel."""
        return np.zeros(shape, dtype=np.bool_)

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film, as it is."""
        return image.copy()

    def describe(self) -> str:
        """In words, for the report."""
        without = f" without {', '.join(self.absent)}" if self.absent else ""
        return f"no pixel: the films that have {' and '.join(self.present)}{without}"

    def describe_place(self) -> str:
        """In words, for the report."""
        return "in the labels alone"
