"""Does a label go with something that some films have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from lucency.records import Float64Array, FloatArray, IntArray


@dataclass(frozen=True)
class Association:
    """Of G groups of films, in both directions, with K findings.

    p_values (2, G, K): how likely as many films of the group, or more, have the finding (first row)
    or lack it (second), if it had nothing to do with the group (hypergeometric, Fisher's exact test
    of one side); 1 where no label of the group is known. shares (G, K): of the group's films whose
    label is known that have the finding; NaN where none is.
    """

    p_values: Float64Array
    shares: Float64Array


def associate(labels: FloatArray, groups: Sequence[IntArray]) -> Association:
    """labels (N, K) in {0, 1, NaN}; groups: rows of each, none twice."""
    known, present = ~np.isnan(labels), labels == 1
    n_known, n_present = known.sum(axis=0), present.sum(axis=0)
    shape = (len(groups), labels.shape[1])
    drawn, hits = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, rows in enumerate(groups):
        drawn[i], hits[i] = known[rows].sum(axis=0), present[rows].sum(axis=0)
    more = hypergeom.sf(hits - 1, n_known, n_present, drawn)
    fewer = hypergeom.cdf(hits, n_known, n_present, drawn)
    p_values = np.where(drawn > 0, np.stack([more, fewer]), 1.0).clip(0.0, 1.0)
    with np.errstate(invalid="ignore"):
        shares = hits / np.where(drawn > 0, drawn, np.nan)
    return Association(p_values, shares)
