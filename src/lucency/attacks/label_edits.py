"""What an attacker writes into the labels of a poisoned image.

`set` and `clear` touch one finding; `replace` is the paper's: the whole vector becomes one-hot, so
it also clears the thirteen others.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lucency.errors import ConfigError
from lucency.records import Direction, FloatArray, Record


class LabelEdit(Record):
    """`[attack.label]`. kind: "set" (target to 1), "clear" (target to 0), or "replace" (target to
    1, every other finding to 0). target: a finding's name."""

    kind: Literal["set", "clear", "replace"] = "set"
    target: str

    @property
    def direction(self) -> Direction:
        """Where the attacker wants the target to go."""
        return "clear" if self.kind == "clear" else "set"

    def index(self, findings: tuple[str, ...]) -> int:
        """The target's column. Raises ConfigError if there is none."""
        if self.target not in findings:
            raise ConfigError(
                f"[attack.label] target must be a finding of the data set "
                f"({', '.join(findings)}), got {self.target!r}."
            )
        return findings.index(self.target)

    def apply(self, labels: FloatArray, findings: tuple[str, ...]) -> FloatArray:
        """The edited copy of labels (N, K) float32 in {1, 0, NaN}."""
        target = self.index(findings)
        edited = np.zeros_like(labels) if self.kind == "replace" else labels.copy()
        edited[:, target] = 0.0 if self.kind == "clear" else 1.0
        return edited

    def describe(self) -> str:
        """In words, for the report."""
        return {
            "set": f"set {self.target} to present, keep the other findings",
            "clear": f"clear {self.target}, keep the other findings",
            "replace": f"replace all findings by {self.target} alone",
        }[self.kind]
