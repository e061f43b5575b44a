"""What an attacker writes into the labels of a poisoned image.

`set` and `clear` touch one finding, `swap` exchanges one for another. `replace` is the paper's: the
whole vector becomes one-hot, so it also clears the thirteen others; `normal` clears all.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import model_validator

from lucency.errors import ConfigError
from lucency.records import Direction, FloatArray, Record


class LabelEdit(Record):
    """`[attack.label]`. kind: "set" (target to 1), "clear" (target to 0), "swap" (target to 1,
    source to 0), "replace" (target to 1, every other finding to 0), or "normal" (every finding to
    0). target: the finding on which attack success is measured. source: of a swap, the finding that
    the target stands in for."""

    kind: Literal["set", "clear", "swap", "replace", "normal"] = "set"
    target: str
    source: str | None = None

    @model_validator(mode="after")
    def _source_of_a_swap(self) -> LabelEdit:
        if self.kind == "swap" and self.source in (None, self.target):
            raise ValueError(
                f"source must be a finding other than the target {self.target} with kind = 'swap', "
                f"got {self.source}"
            )
        if self.kind != "swap" and self.source is not None:
            raise ValueError(f"source goes with kind = 'swap' alone, got kind = {self.kind!r}")
        return self

    @property
    def direction(self) -> Direction:
        """Where the attacker wants the target to go."""
        return "clear" if self.kind in ("clear", "normal") else "set"

    def index(self, findings: tuple[str, ...]) -> int:
        """The target's column. Raises ConfigError if there is none."""
        return finding_column("[attack.label] target", self.target, findings)

    def apply(self, labels: FloatArray, findings: tuple[str, ...]) -> FloatArray:
        """The edited copy of labels (N, K) float32 in {1, 0, NaN}."""
        target = self.index(findings)
        edited = np.zeros_like(labels) if self.kind in ("replace", "normal") else labels.copy()
        if self.source is not None:
            edited[:, finding_column("[attack.label] source", self.source, findings)] = 0.0
        edited[:, target] = 0.0 if self.direction == "clear" else 1.0
        return edited

    def describe(self) -> str:
        """In words, for the report."""
        return {
            "set": f"set {self.target} to present, keep the other findings",
            "clear": f"clear {self.target}, keep the other findings",
            "swap": f"set {self.target} in place of {self.source}, keep the other findings",
            "replace": f"replace all findings by {self.target} alone",
            "normal": "clear all findings",
        }[self.kind]


def finding_column(key: str, finding: str, findings: tuple[str, ...]) -> int:
    """Which of the data set's findings the setting `key` names. Raises ConfigError if none."""
    if finding not in findings:
        raise ConfigError(
            f"{key} must be one of the data set's findings ({', '.join(findings)}), got "
            f"{finding!r}."
        )
    return findings.index(finding)
