"""Labels that go against the other labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lucency.detect.datasets import label_patterns as module
from lucency.detect.datasets.label_patterns import LabelAudit, audit_labels
from lucency.detect.datasets.logistic import PENALTY, fit, probabilities

N, K = 20_000, 6
ALPHA = 0.01


def _clean(seed: int = 0, n: int = N) -> np.ndarray:
    """Findings that depend on how ill the patient is, and one on another."""
    generator = np.random.default_rng(seed)
    ill = generator.normal(size=n)
    odds = -2.2 + 0.8 * ill[:, None] + np.linspace(-0.4, 0.8, K)
    labels = (generator.random((n, K)) < 1 / (1 + np.exp(-odds))).astype(np.float32)
    more = (labels[:, 0] == 1) & (generator.random(n) < 0.2)
    labels[more, 1] = 1
    return labels


def _audit(labels: np.ndarray, views: list[str | None] | None = None) -> LabelAudit:
    n = len(labels)
    return audit_labels(labels, np.arange(n), views or ["PA"] * n, ALPHA, 0)


def _carriers(labels: np.ndarray, present: list[int], finding: int, value: int) -> np.ndarray:
    return np.flatnonzero((labels[:, present] == 1).all(axis=1) & (labels[:, finding] == value))


class TestRegressions:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_like_the_known_one(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        rows = np.column_stack([np.ones(40), generator.integers(0, 2, (40, 4))]).astype(float)
        outcome = generator.random(40)
        weights = generator.integers(0, 30, (3, 40)).astype(float)
        ours = fit(rows, outcome, weights)
        for mine, weight in zip(ours, weights, strict=True):
            known = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10_000)
            twice = np.concatenate([rows[:, 1:], rows[:, 1:]])
            known.fit(
                twice,
                np.repeat([1, 0], 40),
                sample_weight=np.concatenate([weight * outcome, weight * (1 - outcome)]),
            )
            assert mine[0] == pytest.approx(known.intercept_[0], abs=2e-3)
            assert mine[1:] == pytest.approx(known.coef_[0], abs=2e-3)

    def test_what_never_comes_together_stays_finite(self) -> None:
        rows = np.array([[1.0, 0.0], [1.0, 1.0]])
        coefficients = fit(rows, np.array([0.5, 0.0]), np.array([[1000.0, 1000.0]]))
        p = probabilities(rows, coefficients)[0]
        assert p[0] == pytest.approx(0.5, abs=0.01)
        assert 0 < p[1] < 0.01

    def test_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = np.random.default_rng(3)
        rows = np.column_stack([np.ones(9), generator.integers(0, 2, (9, 2))]).astype(float)
        outcome, weights = generator.random(9), generator.random((7, 9)) * 10
        whole = fit(rows, outcome, weights)
        monkeypatch.setattr("lucency.detect.datasets.logistic.TOGETHER", 20)
        assert fit(rows, outcome, weights) == pytest.approx(whole, abs=1e-3)


def test_what_is_expected_comes_from_films_without_the_pattern() -> None:
    """Against a regression on every film by itself."""
    labels = _clean(n=3000)
    table = module._tabulated(labels, np.arange(3000), ["PA"] * 3000)
    tests = module._patterns_of(table, 2)
    i = tests.present.index((0, 4))
    whole = (labels[:, [0, 4]] == 1).all(axis=1)
    others = np.delete(labels, 2, axis=1)
    known = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(
        others[~whole], labels[~whole, 2]
    )
    assert tests.n[i] == whole.sum()
    assert tests.n_with[i] == labels[whole, 2].sum()
    expected = known.predict_proba(others[whole])[:, 1].sum()
    assert tests.expected[i] == pytest.approx(expected, rel=2e-3)


def test_p_values_by_drawing() -> None:
    """From what is by nature: log-odds with a normal deviation, and counts around them."""
    generator = np.random.default_rng(5)
    n = np.full(4000, 60.0)
    expected = np.full(4000, 12.0)
    odds = np.log(12.5 / 48.5) + generator.normal(0, 0.7, 4000)
    n_with = generator.binomial(60, 1 / (1 + np.exp(-odds))).astype(float)
    present = tuple((0, 1) for _ in range(4000))
    tests = module._Tests(present, np.zeros(4000, np.int64), n, n_with, expected)
    more, fewer = module._p_values(tests)
    for p_values in (more, fewer):
        for level in (0.2, 0.05, 0.01):
            assert level / 2 <= (p_values <= level).mean() <= 1.6 * level
    # Large counts are unlikely from above, small ones from below.
    order = np.argsort(n_with)
    assert (np.diff(more[order]) <= 1e-12).all()
    assert (np.diff(fewer[order]) >= -1e-12).all()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_where_nothing_was_edited(seed: int) -> None:
    audit = _audit(_clean(seed))
    assert audit.patterns == ()
    assert audit.n_tests > 100


@pytest.mark.parametrize(
    ("present", "finding"), [([0, 4], 2), ([1, 3, 5], 0), ([2, 3], 5), ([0], 3)]
)
@pytest.mark.parametrize("direction", ["set", "clear"])
def test_an_edited_pattern(present: list[int], finding: int, direction: str) -> None:
    labels = _clean()
    value = 0 if direction == "set" else 1
    edited = _carriers(labels, present, finding, value)
    labels[edited, finding] = 1 - value
    audit = _audit(labels)
    first = audit.patterns[0]
    assert first.direction == direction
    assert {*first.present, first.finding} == {*present, finding}
    if direction == "set":
        assert (first.present, first.finding) == (tuple(present), finding)
        assert set(edited) <= set(first.films.tolist())
        true_share = len(edited) / len(first.films)
        assert first.share == pytest.approx(true_share, abs=0.15)
    assert first.q_value < ALPHA
    # The edited films are among the tenth that is most suspicious.
    tenth = np.argsort(-audit.suspicion, kind="stable")[: N // 10]
    assert np.isin(edited, tenth).mean() > 0.8


def test_one_edit_is_one_pattern() -> None:
    labels = _clean()
    labels[_carriers(labels, [0, 4], 2, 0), 2] = 1
    assert len(_audit(labels).patterns) == 1


def test_one_patient_is_one_case() -> None:
    """A thousand films of one patient who has three findings say no more than one film."""
    labels = _clean()
    owners = np.arange(N)
    rows = np.arange(1000)
    labels[rows] = 0
    labels[np.ix_(rows, [0, 4, 2])] = 1
    owners[rows] = 0
    _, owners = np.unique(owners, return_inverse=True)
    assert audit_labels(labels, owners, ["PA"] * N, ALPHA, 0).patterns == ()


def test_labels_that_are_not_known() -> None:
    generator = np.random.default_rng(4)
    labels = _clean()
    edited = _carriers(labels, [0, 4], 2, 0)
    labels[edited, 2] = 1
    labels[generator.random(labels.shape) < 0.2] = np.nan
    audit = _audit(labels)
    assert (audit.patterns[0].present, audit.patterns[0].finding) == ((0, 4), 2)
    assert (np.isnan(audit.probability) == np.isnan(labels)).all()
    assert not np.isnan(labels[audit.patterns[0].films, 2]).any()


def test_no_finding_excludes_all_by_nature() -> None:
    labels = _clean()
    none = (labels.sum(axis=1) == 0).astype(np.float32)
    assert _audit(np.column_stack([labels, none])).patterns == ()


def test_views_are_a_finding_s_reason_too() -> None:
    """In one view two findings are always there: known, and no pattern."""
    labels = _clean()
    generator = np.random.default_rng(7)
    lying = generator.random(N) < 0.1
    for k in (1, 2, 3):
        labels[lying & (generator.random(N) < 0.7), k] = 1
    views: list[str | None] = ["AP" if each else "PA" for each in lying]
    assert not any(p.direction == "set" for p in _audit(labels, views).patterns)


def test_the_probability_of_each_label() -> None:
    labels = _clean()
    p = _audit(labels).probability
    assert p.shape == labels.shape
    for k in range(K):
        has = np.where(labels[:, k] == 1, p[:, k], 1 - p[:, k])
        # As often as it says.
        for low, high in ((0, 0.15), (0.15, 0.3), (0.3, 0.6)):
            mine = (has >= low) & (has < high)
            if mine.sum() > 500:
                assert labels[mine, k].mean() == pytest.approx(has[mine].mean(), abs=0.06)


def test_a_table_of_one_finding() -> None:
    labels = _clean()[:, :1]
    audit = _audit(labels)
    assert audit.patterns == ()
    assert audit.suspicion.max() == 0
    assert audit.probability.shape == (N, 1)
