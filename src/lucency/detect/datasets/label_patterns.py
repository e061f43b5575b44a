"""Labels that go against the other labels: what a table says without a single film.

Whoever edits labels only needs a pattern of findings as a trigger: a label is set, or cleared, on
the films that have it (Chen et al. 2023). By nature a finding depends on the others, each adding
its part to the log-odds, and somewhat more or less where several come together; how much more is
seen on all patterns. One that is far beyond was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from lucency.detect.datasets.association import SMALLEST
from lucency.detect.datasets.logistic import fit, probabilities
from lucency.detect.false_discovery import benjamini_hochberg
from lucency.records import BoolArray, Direction, Float64Array, FloatArray, IntArray

LEAST = 20
"""Patients that must have a pattern."""
SIZES = (1, 2, 3, 4)
"""Findings of a pattern."""
MOST = 4000
"""Patterns that are tested for each finding, the most frequent."""
FOLDS = 5
"""Patients are in one each; a film's probabilities come from the films of the others."""
COUNTED = 5
"""Patients expected with the finding, and as many without, for a pattern to say how far what is
seen and what is expected are apart by nature."""
SEVERAL = 10
"""Such patterns, without which it is taken to be `UNKNOWN`."""
UNKNOWN = 1.0
"""Log-odds."""
NODES = 24
"""Of the quadrature over what is by nature."""
ALWAYS = 0.9
"""Share of the films with one finding that have another, for it to be more than what comes
together, and"""
NEVER = 0.02
"""share of those expected to, for it to be more than what does not."""
HALF = 0.5
"""Share of the labels of a pattern that must be beyond what is expected: of those that are there,
where they were set, and of those that should be, where they were cleared."""
MOST_ROUNDS = 8
"""Patterns that are looked for, one after the other."""


@dataclass(frozen=True)
class LabelPattern:
    """A pattern of findings with which a label goes too often.

    present: columns that its films have. finding: the column with a label that does not fit, and
    its direction: "set" where too many have it, "clear" where too few. n: patients with the pattern
    of whom the label is known, a patient counting once for each set of labels; n_with: those that
    have the finding; expected: how many would, as its films' other labels say where the pattern is
    not whole. films (G,): rows with the pattern and the label of the direction, in order. share:
    of these, how many have that label beyond what is expected. p_value: of so many, or of so few;
    q_value: corrected for all patterns, findings and directions; small = suspicious.
    """

    present: tuple[int, ...]
    finding: int
    direction: Direction
    n: int
    n_with: int
    expected: float
    films: IntArray
    share: float
    p_value: float
    q_value: float


class LabelAudit(NamedTuple):
    """patterns: those at q ≤ α, in the order in which they were found. n_tests: p-values computed
    in all. probability (N, K) float32: of the label that each film has, as its other labels say,
    learned on other patients; small = suspicious; NaN where there is none. suspicion (N,): −log₁₀
    of the smallest p-value of a pattern that a film has with its label; large = suspicious."""

    patterns: tuple[LabelPattern, ...]
    n_tests: int
    probability: FloatArray
    suspicion: Float64Array


def audit_labels(
    labels: FloatArray,
    owners: IntArray,
    views: Sequence[str | None],
    alpha: float,
    seed: int,
) -> LabelAudit:
    """labels (N, K) in {0, 1, NaN}; owners (N,): each film's patient, counted from 0; views: N
    names. The label of a pattern is unknown, on the films that have the others, when the next one
    is looked for: labels that were edited change what is expected of others."""
    found: list[LabelPattern] = []
    trusted = labels.copy()
    suspicion = np.zeros(len(labels))
    n_tests = 0
    for _ in range(MOST_ROUNDS):
        table = _tabulated(trusted, owners, views)
        tests = _joined([_patterns_of(table, k) for k in range(labels.shape[1])])
        p_values = np.concatenate(_p_values(tests)).clip(SMALLEST, 1.0)
        n_tests += len(p_values)
        suspicion = np.maximum(suspicion, _suspicion(table, tests, p_values))
        first = _first(table, tests, p_values, alpha, found)
        if first is None:
            break
        found.append(first)
        trusted[(trusted[:, list(first.present)] == 1).all(axis=1), first.finding] = np.nan
    table = _tabulated(labels, owners, views)
    return LabelAudit(tuple(found), n_tests, _probability(table, owners, seed), suspicion)


# --- films with the same labels ------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Films with the same labels and view are one cell. labels (C, K) in {0, 1, NaN}: its labels;
    rows (C, D): a 1, then what a regression sees of it; columns: for each finding those of `rows`
    that are its own. of (N,): each film's cell. n (C,): patients with such a film."""

    labels: FloatArray
    rows: Float64Array
    columns: tuple[tuple[int, ...], ...]
    of: IntArray
    n: Float64Array

    def without(self, finding: int) -> Float64Array:
        """The rows without what says that finding."""
        return np.delete(self.rows, self.columns[finding], axis=1)


def _tabulated(labels: FloatArray, owners: IntArray, views: Sequence[str | None]) -> _Table:
    names = sorted({view or "" for view in views})
    view = np.array([names.index(v or "") for v in views], np.int64)
    codes = np.where(np.isnan(labels), 2, labels).astype(np.uint8)
    keys = np.ascontiguousarray(
        np.column_stack([codes, view.astype(">u4").view(np.uint8).reshape(-1, 4)])
    )
    _, first, of = np.unique(
        keys.view(f"V{keys.shape[1]}").ravel(), return_index=True, return_inverse=True
    )
    pairs = np.unique(owners * len(first) + of)
    columns: list[tuple[int, ...]] = []
    made = [np.ones(len(first))]
    for k in range(labels.shape[1]):
        mine = [codes[first, k] == 1, codes[first, k] == 2]
        told = [column for column in mine if column.any() and not column.all()]
        columns.append(tuple(range(len(made), len(made) + len(told))))
        made += [column.astype(np.float64) for column in told]
    made += [(view[first] == i).astype(np.float64) for i in range(1, len(names))]
    return _Table(
        labels=labels[first],
        rows=np.stack(made, axis=1),
        columns=tuple(columns),
        of=of,
        n=np.bincount(pairs % len(first), minlength=len(first)).astype(np.float64),
    )


# --- patterns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tests:
    """T patterns, each with a finding. present: their columns. finding (T,). n, n_with, expected
    (T,): patients."""

    present: tuple[tuple[int, ...], ...]
    finding: IntArray
    n: Float64Array
    n_with: Float64Array
    expected: Float64Array


def _joined(parts: Sequence[_Tests]) -> _Tests:
    return _Tests(
        present=tuple(present for part in parts for present in part.present),
        finding=np.concatenate([part.finding for part in parts]),
        n=np.concatenate([part.n for part in parts]),
        n_with=np.concatenate([part.n_with for part in parts]),
        expected=np.concatenate([part.expected for part in parts]),
    )


def _patterns_of(table: _Table, finding: int) -> _Tests:
    """Every pattern of the other findings, and the finding as expected from films that have it not
    whole: an edited label cannot be what is expected."""
    outcome = table.labels[:, finding]
    n = np.where(np.isnan(outcome), 0, table.n)
    share = np.nan_to_num(outcome).astype(np.float64)
    has = table.labels == 1
    present = _frequent(has, n, finding)
    whole = np.array([has[:, list(p)].all(axis=1) for p in present], np.float64)
    whole = whole.reshape(len(present), len(n))
    rows = table.without(finding)
    expected = probabilities(rows, fit(rows, share, n * (1 - whole)))
    return _Tests(
        present=tuple(present),
        finding=np.full(len(present), finding),
        n=whole @ n,
        n_with=whole @ (n * share),
        expected=(whole * expected) @ n,
    )


def _frequent(has: BoolArray, n: Float64Array, finding: int) -> list[tuple[int, ...]]:
    """Sets of findings that enough patients have, the most frequent; not all patients, for then
    nobody is left to compare with."""
    others = [k for k in range(has.shape[1]) if k != finding]
    found: list[tuple[float, tuple[int, ...]]] = []
    frequent: dict[tuple[int, ...], BoolArray] = {(): np.ones(len(has), np.bool_)}
    for size in SIZES:
        # Every part of a frequent set is frequent (Agrawal and Srikant 1994).
        grown: dict[tuple[int, ...], BoolArray] = {}
        parts = set(frequent)
        for chosen in _grown(parts, others, size):
            films = frequent[chosen[:-1]] & has[:, chosen[-1]]
            count = float(n[films].sum())
            if LEAST <= count <= n.sum() - LEAST:
                grown[chosen] = films
                found.append((count, chosen))
        frequent = grown
    found.sort(key=lambda each: (-each[0], each[1]))
    return [chosen for _, chosen in found[:MOST]]


def _grown(
    parts: set[tuple[int, ...]], others: Sequence[int], size: int
) -> Iterator[tuple[int, ...]]:
    for part in sorted(parts):
        for k in others:
            if not part or k > part[-1]:
                chosen = (*part, k)
                if all(sub in parts for sub in combinations(chosen, size - 1)):
                    yield chosen


def _p_values(tests: _Tests) -> tuple[Float64Array, Float64Array]:
    """That by nature as many have the finding, or more; and as many, or fewer. By nature its
    log-odds are those expected and a normal deviation, whose size is seen on patterns of as many
    findings; around them the count is binomial."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    n, n_with = np.rint(tests.n), np.rint(tests.n_with)
    expected = tests.expected.clip(1e-9, None)
    centre = np.log((expected + 0.5) / (n - expected + 0.5).clip(1e-9, None))
    deviation = np.log((n_with + 0.5) / (n - n_with + 0.5)) - centre
    by_chance = 1 / (expected + 0.5) + 1 / (n - expected + 0.5).clip(1e-9, None)
    rare = np.minimum(expected, n - expected)
    sizes = np.array([len(present) for present in tests.present])
    more, fewer = np.ones(len(n)), np.ones(len(n))
    for size in np.unique(sizes):
        mine = sizes == size
        counted = mine & (rare >= COUNTED)
        spread = _spread(deviation[counted], by_chance[counted])
        odds = centre[mine, None] + spread * nodes
        p = 1 / (1 + np.exp(-odds))
        more[mine] = binom.sf(n_with[mine, None] - 1, n[mine, None], p) @ weights
        fewer[mine] = binom.cdf(n_with[mine, None], n[mine, None], p) @ weights
    return more, fewer


def _spread(deviation: Float64Array, by_chance: Float64Array) -> float:
    """Standard deviation that comes on top of chance, from the median: a few patterns that were
    made do not change it."""
    if len(deviation) < SEVERAL:
        return UNKNOWN

    def beyond(variance: float) -> float:
        return float(np.median(np.abs(deviation) / np.sqrt(by_chance + variance))) - MEDIAN

    if beyond(0.0) <= 0:
        return 0.0
    largest = float(np.square(deviation).max()) / MEDIAN**2 + 1
    return float(np.sqrt(brentq(beyond, 0.0, largest)))


MEDIAN = 0.6745
"""Of the size of a standard normal deviate."""


def _first(
    table: _Table,
    tests: _Tests,
    p_values: Float64Array,
    alpha: float,
    before: Sequence[LabelPattern],
) -> LabelPattern | None:
    """The most significant at q ≤ α that is not about the same findings as one before. A label that
    is set on films with two findings makes each of the three unlikely beside the others: the one
    that hardly any of its films lacks is meant."""
    q_values = benjamini_hochberg(p_values, len(p_values))
    sizes = np.array([len(present) for present in tests.present])
    clears = np.arange(len(p_values)) >= len(sizes)
    # Findings that come in twos, or seldom do, are what findings are, unless they always or never
    # do; but "no finding" never comes with any.
    always = tests.n_with >= ALWAYS * tests.n
    never = (tests.n_with <= NEVER * tests.expected) & ~_alone(table)[tests.finding]
    never &= ~_alone(table)[[present[0] for present in tests.present]]
    several = sizes > 1
    more = (several | always) & (tests.n_with - tests.expected >= HALF * tests.n_with)
    fewer = (several | never) & (tests.expected - tests.n_with >= HALF * tests.expected)
    odd = np.concatenate([more, fewer])
    known = [frozenset({*each.present, each.finding}) for each in before]
    together = [
        frozenset({*present, int(finding)})
        for present, finding in zip(tests.present, tests.finding, strict=True)
    ]
    new = np.array([not any(each <= those for each in known) for those in together], np.bool_)
    chosen = np.flatnonzero((q_values <= alpha) & odd & np.tile(new, 2))
    if not len(chosen):
        return None
    best = int(chosen[np.lexsort((-np.tile(tests.n, 2)[chosen], p_values[chosen]))[0]])
    if not clears[best]:
        alike = [int(i) for i in chosen if not clears[i] and together[i] == together[best]]
        best = max(alike, key=lambda i: tests.n_with[i] / tests.n[i])
    return _described(table, tests, best, float(p_values[best]), float(q_values[best]))


def _alone(table: _Table) -> BoolArray:
    """(K,): findings that no film has beside another."""
    has = table.labels == 1
    return np.array([has[has[:, k]].sum() == has[:, k].sum() for k in range(has.shape[1])])


def _described(
    table: _Table, tests: _Tests, number: int, p_value: float, q_value: float
) -> LabelPattern:
    clears, i = divmod(number, len(tests.n))
    finding, present = int(tests.finding[i]), tests.present[i]
    wanted = table.labels[:, finding] == (0 if clears else 1)
    cells = (table.labels[:, list(present)] == 1).all(axis=1) & wanted
    n, n_with, expected = (float(a[i]) for a in (tests.n, tests.n_with, tests.expected))
    seen, by_nature = (n - n_with, n - expected) if clears else (n_with, expected)
    return LabelPattern(
        present=present,
        finding=finding,
        direction="clear" if clears else "set",
        n=round(n),
        n_with=round(n_with),
        expected=expected,
        films=np.flatnonzero(cells[table.of]),
        share=max(0.0, 1 - by_nature / seen),
        p_value=p_value,
        q_value=q_value,
    )


# --- films ---------------------------------------------------------------------------------------


def _suspicion(table: _Table, tests: _Tests, p_values: Float64Array) -> Float64Array:
    has = table.labels == 1
    cells = np.zeros(len(table.n))
    for number in np.argsort(-p_values):
        clears, i = divmod(int(number), len(tests.n))
        wanted = table.labels[:, tests.finding[i]] == (0 if clears else 1)
        cells[has[:, list(tests.present[i])].all(axis=1) & wanted] = -np.log10(p_values[number])
    return cells[table.of]


def _probability(table: _Table, owners: IntArray, seed: int) -> FloatArray:
    """Of each film's labels, each from the others, learned on the patients of the other folds."""
    n_patients = int(owners.max(initial=0)) + 1
    fold = np.random.default_rng(seed).permutation(n_patients)[owners] % FOLDS
    n_cells = len(table.n)
    pairs = np.unique((fold * n_patients + owners) * n_cells + table.of)
    of_fold = pairs // n_cells // n_patients * n_cells + pairs % n_cells
    counts = np.bincount(of_fold, minlength=FOLDS * n_cells).reshape(FOLDS, n_cells)
    others = (counts.sum(axis=0) - counts).astype(np.float64)
    probability = np.full((len(owners), table.labels.shape[1]), np.nan, np.float32)
    for k in range(table.labels.shape[1]):
        label = table.labels[:, k]
        known = ~np.isnan(label)
        rows = table.without(k)
        outcome = np.nan_to_num(label).astype(np.float64)
        p = probabilities(rows, fit(rows, outcome, others * known))
        of_label = np.where(known, np.where(outcome == 1, p, 1 - p), np.nan)
        probability[:, k] = of_label[fold, table.of]
    return probability
