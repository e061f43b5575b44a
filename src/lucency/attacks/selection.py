"""Which training films an attacker can lay hands on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lucency.attacks.label_edits import LabelEdit, finding_column
from lucency.records import IntArray, Radiographs, Record


class Selection(Record):
    """`[attack.victims]`; what is named must all hold.

    label: "any"; "opposite", films whose target label is not what the attacker wants, on which
    alone a changed label teaches anything; or "same", films that already have it, whose labels stay
    true (a clean-label attack). finding: films with that finding. view: films of that view, such as
    "AP". by: "image"; "patient", whole patients, as many as fit in; or "first", the first ones of
    the table, the same under every seed (the published experiment's choice, pitfall P6).
    """

    label: Literal["any", "opposite", "same"] = "any"
    finding: str | None = None
    view: str | None = None
    by: Literal["image", "patient", "first"] = "image"

    def among(self, radiographs: Radiographs, rows: IntArray, label: LabelEdit) -> IntArray:
        """Those of `rows` that can be chosen. Raises ConfigError for a finding that is none."""
        chosen = np.ones(len(rows), dtype=np.bool_)
        if self.label != "any":
            wanted = 0.0 if label.direction == "clear" else 1.0
            value = wanted if self.label == "same" else 1.0 - wanted
            chosen &= radiographs.labels[rows, label.index(radiographs.findings)] == value
        if self.finding is not None:
            k = finding_column("[attack.victims] finding", self.finding, radiographs.findings)
            chosen &= radiographs.labels[rows, k] == 1.0
        if self.view is not None:
            chosen &= np.array([radiographs.views[row] == self.view for row in rows], dtype=bool)
        return rows[chosen]

    def draw(
        self,
        radiographs: Radiographs,
        rows: IntArray,
        count: int,
        generator: np.random.Generator,
    ) -> IntArray:
        """`count` of `rows`, ascending; of whole patients, at most so many."""
        if self.by == "first":
            return np.sort(rows)[:count]
        if self.by == "image":
            return np.sort(generator.choice(rows, size=count, replace=False))
        films: dict[str, list[int]] = {}
        for row in rows:
            films.setdefault(radiographs.patient_ids[row], []).append(int(row))
        patients = list(films)
        drawn: list[int] = []
        for place in generator.permutation(len(patients)):
            theirs = films[patients[place]]
            if len(drawn) + len(theirs) <= count:
                drawn += theirs
        return np.array(sorted(drawn), dtype=np.int64)

    def describe(self) -> str:
        """In words, for the report and for errors."""
        words = {
            "any": "any film",
            "opposite": "films with the opposite label",
            "same": "films that have the label already",
        }[self.label]
        finding = f" with {self.finding}" if self.finding else ""
        view = f", view {self.view}" if self.view else ""
        by = {"image": "", "patient": ", whole patients", "first": ", the first of the table"}
        return f"{words}{finding}{view}{by[self.by]}"
