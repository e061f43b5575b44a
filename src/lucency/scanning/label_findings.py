"""From patterns of labels to what is reported, and which films are flagged for their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucency.detect.datasets.label_patterns import LabelAudit, LabelPattern
from lucency.evaluate.intervals import clopper_pearson
from lucency.records import BoolArray, Radiographs
from lucency.report.scan_record import LabelKind, OddLabel, OddLabels
from lucency.scanning.findings import N_IMAGES

EDITED = 0.75
"""Share of the films with a pattern and its label that have it beyond what is expected, for them to
look edited; of fewer it is not known which."""


def kind_of_labels(pattern: LabelPattern) -> LabelKind:
    return "edited" if pattern.share >= EDITED else "odd"


def flagged_labels(
    patterns: Sequence[LabelPattern], n: int, *, unexplained: bool = False
) -> BoolArray:
    """(N,): films whose label looks edited; with `unexplained` also those of which some do."""
    flags = np.zeros(n, np.bool_)
    for pattern in patterns:
        if unexplained or kind_of_labels(pattern) == "edited":
            flags[pattern.films] = True
    return flags


def odd_labels(pattern: LabelPattern, radiographs: Radiographs) -> OddLabels:
    low, high = shares(pattern)
    return OddLabels(
        kind=kind_of_labels(pattern),
        present=tuple(radiographs.findings[k] for k in pattern.present),
        finding=radiographs.findings[pattern.finding],
        direction=pattern.direction,
        n_patients=pattern.n,
        n_with=pattern.n_with,
        expected=pattern.expected,
        n_films=len(pattern.films),
        share=pattern.share,
        share_low=low,
        share_high=high,
        p_value=pattern.p_value,
        q_value=pattern.q_value,
        images=tuple(radiographs.image_ids[row] for row in pattern.films[:N_IMAGES]),
    )


def shares(pattern: LabelPattern) -> tuple[float, float]:
    """Of `share`, from the interval of the patients who have the label."""
    clears = pattern.direction == "clear"
    seen = pattern.n - pattern.n_with if clears else pattern.n_with
    by_nature = pattern.n - pattern.expected if clears else pattern.expected
    low, high = (
        max(0.0, 1 - by_nature / (end * pattern.n)) if end else 0.0
        for end in clopper_pearson(seen, pattern.n)
    )
    return low, high


def least_likely(audit: LabelAudit, radiographs: Radiographs, row: int) -> OddLabel | None:
    """Of one film's labels the one that the others speak against most."""
    probability = audit.probability[row]
    if np.isnan(probability).all():
        return None
    k = int(np.nanargmin(probability))
    return OddLabel(
        finding=radiographs.findings[k],
        value=1 if radiographs.labels[row, k] == 1 else 0,
        probability=float(probability[k]),
    )
