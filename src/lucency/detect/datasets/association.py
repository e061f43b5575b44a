"""Does a label go with something that some films have?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from lucency.records import Float64Array, FloatArray, IntArray

SMALLEST = np.finfo(np.float64).tiny
"""No p-value is less: what is smaller cannot be told from 0."""


@dataclass(frozen=True)
class Association:
    """Of G groups of films, in both directions, with K findings.

    p_values (2, G, K) in (0, 1]: how likely as many patients of the group, or more, have the
    finding (first row) or lack it (second), if it had nothing to do with the group
    (hypergeometric, Fisher's exact test of one side); 1 where no label of the group is known. small
    = suspicious.
    """

    p_values: Float64Array


def associate(
    labels: FloatArray, owners: IntArray, films: IntArray, groups: IntArray, n_groups: int
) -> Association:
    """labels (N, K) in {0, 1, NaN}; owners (N,): each film's patient, counted from 0; films (M,):
    rows that are in a group; groups (M,): which, from 0 to `n_groups` - 1.

    A patient counts once, however many films of theirs are in a group: as the share of these that
    have the finding, since films of one patient have their device, their place and their diagnosis
    in common. Sums of such shares are rounded to the side that makes p larger.
    """
    everyone = np.zeros(len(labels), np.int64)
    population, n_known = _patients(labels, owners, np.arange(len(labels)), everyone, 1)
    present, drawn = _patients(labels, owners, films, groups, n_groups)
    n_present = np.rint(population).astype(np.int64)
    fewest = np.maximum(drawn - (n_known - n_present), 0)
    most = np.minimum(drawn, n_present)
    hits = np.floor(present + ROUNDING).astype(np.int64).clip(fewest, most)
    more = hypergeom.sf(hits - 1, n_known, n_present, drawn)
    hits = np.ceil(present - ROUNDING).astype(np.int64).clip(fewest, most)
    fewer = hypergeom.cdf(hits, n_known, n_present, drawn)
    return Association(np.where(drawn > 0, np.stack([more, fewer]), 1.0).clip(SMALLEST, 1.0))


ROUNDING = 1e-6
"""Of sums of shares."""


def _patients(
    labels: FloatArray, owners: IntArray, films: IntArray, groups: IntArray, n_groups: int
) -> tuple[Float64Array, IntArray]:
    """Of each group (G, K): the sum over its patients of the share of their films with the finding;
    and how many patients have a film of which that is known."""
    pairs, of = np.unique(groups * (owners.max(initial=0) + 1) + owners[films], return_inverse=True)
    group_of_pair = np.zeros(len(pairs), np.int64)
    group_of_pair[of] = groups
    shape = (n_groups, labels.shape[1])
    present, drawn = np.zeros(shape), np.zeros(shape, np.int64)
    for k in range(labels.shape[1]):
        values = labels[films, k]
        known = ~np.isnan(values)
        n_films = np.bincount(of[known], minlength=len(pairs))
        n_with = np.bincount(of[known], values[known], minlength=len(pairs))
        share = n_with / np.maximum(n_films, 1)
        present[:, k] = np.bincount(group_of_pair, share, minlength=n_groups)
        drawn[:, k] = np.bincount(group_of_pair, n_films > 0, minlength=n_groups)
    return present, drawn
