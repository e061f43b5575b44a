"""The co-finding residual against the conditional distribution written out."""

import numpy as np
import pytest

from lucency.detect.images.cofinding import LEAST, MOST, fit_residuals, relevance, residuals
from lucency.detect.images.evidence import Evidence
from lucency.detect.images.whitening import Whitening
from lucency.errors import DataError

K = 5


def _together(n: int, seed: int) -> np.ndarray:
    """Logits of findings that come together: one cause, and each finding's own."""
    generator = np.random.default_rng(seed)
    return 2.0 * generator.normal(size=(n, 1)) + 0.5 * generator.normal(size=(n, K)) - 3


def _conditional(of: Whitening, row: np.ndarray) -> list[float]:
    """Each finding given the others, one at a time, from blocks of the covariance."""
    covariance = np.linalg.inv(of.precision)
    scaled = (row - of.centre) / of.spread - of.mean
    found = []
    for k in range(len(row)):
        others = [j for j in range(len(row)) if j != k]
        weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, k])
        variance = covariance[k, k] - weights @ covariance[others, k]
        found.append((scaled[k] - weights @ scaled[others]) / np.sqrt(variance))
    return found


@pytest.mark.parametrize("n", [6, 40, 400])
def test_against_the_conditional_distribution(n: int) -> None:
    of = fit_residuals(_together(n, 1))
    suspects = _together(7, 2)
    expected = [_conditional(of, row) for row in suspects]
    np.testing.assert_allclose(residuals(of, suspects), expected, rtol=1e-6)


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["set", "clear"])
def test_a_finding_moved_alone_stands_out_by_name(direction: float) -> None:
    """By two standard deviations of its own: nothing unusual where it would come with the rest."""
    of = fit_residuals(_together(60, 3))
    clean = _together(200, 4)
    moved = clean.copy()
    moved[:, 2] += direction * 2 * clean[:, 2].std()
    bound = np.quantile(np.abs(residuals(of, clean)).max(axis=1), 0.99)
    found = direction * residuals(of, moved)
    assert (found.max(axis=1) > bound).mean() > 0.95
    assert (found.argmax(axis=1) == 2).all()


def test_findings_that_move_together_are_explained() -> None:
    of = fit_residuals(_together(60, 3))
    clean = _together(200, 4)
    found, usual = (
        np.abs(residuals(of, logits)).max(axis=1)
        for logits in (clean + 2 * clean.std(axis=0), clean)
    )
    assert np.median(found) < 2 * np.median(usual)


def test_one_finding_is_measured_by_its_own_spread() -> None:
    logits = _together(80, 5)[:, :1]
    of = fit_residuals(logits)
    expected = ((logits - of.centre) / of.spread - of.mean) * np.sqrt(of.precision[0, 0])
    np.testing.assert_allclose(residuals(of, logits), expected)


def test_copies_and_too_few_films() -> None:
    copies = np.tile(_together(1, 6), (9, 1))
    assert np.isfinite(residuals(fit_residuals(copies), _together(4, 7))).all()
    with pytest.raises(DataError, match="At least 2"):
        fit_residuals(copies[:1])


def test_an_effect_counts_as_far_as_it_undoes_what_is_not_explained() -> None:
    """Two columns of findings 1 and 0: closer to the expected, and away from it."""
    residual = np.array([[3.0, -1.2], [0.1, 0.0], [-4.0, 1.0]])
    effects = np.array([[-1.0, -1.0], [5.0, 5.0], [0.2, -0.1]])
    nothing = np.zeros_like(effects)
    evidence = Evidence(effects, np.array([1, 0]), np.zeros(2, np.int64), nothing, nothing)
    expected = [[1.2, LEAST], [LEAST, LEAST], [1.0, MOST]]
    np.testing.assert_allclose(relevance(residual, evidence), expected)
