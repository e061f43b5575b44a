"""The shift test: silent on films of one kind, loud on another, and what it offers then."""

import numpy as np
import pytest
from scipy.stats import kstest

from lucency.detect.images.calibrate import conformal_p
from lucency.detect.images.shift import (
    GREY,
    Shift,
    _energy_test,
    describe,
    fit_basis,
    names,
    own_majority,
    shift,
)


def _rows(n: int, seed: int, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 1, (n, 12)) + offset).astype(np.float32)


def _shift(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Shift:
    generator = np.random.default_rng(seed + 99)
    columns = names(tuple("abcd"), 12)
    found = shift(
        a,
        b,
        columns,
        reference_suspicion=generator.random(len(a)),
        suspicion=generator.random(len(b)),
        seed=seed,
    )
    assert isinstance(found, Shift)
    return found


def test_its_p_values_are_uniform_on_films_of_one_kind() -> None:
    p = [_shift(_rows(40, 2 * s), _rows(30, 2 * s + 1), s).p_value for s in range(120)]
    assert kstest(p, "uniform").pvalue > 0.01


def test_another_kind_is_seen_and_named() -> None:
    there = _rows(60, 2)
    there[:, 3] += 2.0
    found = _shift(_rows(60, 1), there)
    assert found.p_value <= 0.001
    assert next(iter(found.differences)) == names(tuple("abcd"), 12)[3]
    assert found.differences["middle grey"] == pytest.approx(2.0, abs=0.6)


def test_a_few_triggered_films_are_no_shift() -> None:
    """A tenth of the suspects may be anything, if they are the most suspicious ones."""
    a, b = _rows(100, 1), _rows(100, 2)
    b[:9] += 8.0
    suspicion = np.random.default_rng(0).random(100)
    suspicion[:9] += 10
    found = shift(
        a,
        b,
        names(tuple("abcd"), 12),
        reference_suspicion=np.random.default_rng(1).random(100),
        suspicion=suspicion,
        seed=0,
    )
    assert isinstance(found, Shift)
    assert found.p_value > 0.01


@pytest.mark.parametrize(("n", "m"), [(9, 50), (50, 9), (0, 0)])
def test_too_few_films_are_said(n: int, m: int) -> None:
    found = shift(
        _rows(n, 1),
        _rows(m, 2),
        names(tuple("abcd"), 12),
        reference_suspicion=np.zeros(n),
        suspicion=np.zeros(m),
        seed=0,
    )
    assert isinstance(found, str)
    assert f"there are {n} reference films and {m} suspects" in found


def test_the_energy_distance_against_its_definition() -> None:
    a, b = _rows(9, 1).astype(float), _rows(7, 2, 0.5).astype(float)

    def mean(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.mean([[np.linalg.norm(x - y) for y in v] for x in u]))

    expected = 2 * mean(a, b) - mean(a, a) - mean(b, b)
    found, p_value = _energy_test(a, b, np.random.default_rng(0))
    assert found == pytest.approx(expected)
    assert 0 < p_value <= 1


def test_descriptions() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (20, 16, 16)).astype(np.uint8)
    features = generator.normal(0, 1, (20, 30))
    basis = fit_basis(features)
    table = describe(basis, images, np.zeros((20, 4)), features)
    assert table.shape == (20, len(GREY) + 4 + 8)
    assert len(names(tuple("abcd"), table.shape[1])) == table.shape[1]
    np.testing.assert_allclose(table[:, 0], images.mean(axis=(1, 2)) / 255, rtol=1e-5)
    wide = describe(basis, images.astype(np.uint16) * 257, np.zeros((20, 4)), features)
    np.testing.assert_allclose(wide, table, atol=1e-5)
    alone = describe(fit_basis(None), images, np.zeros((20, 4)), None)
    assert alone.shape == (20, len(GREY) + 4)


def test_the_suspects_own_majority_repairs_a_shifted_scale() -> None:
    """Clean scores of another hospital: a shift and a factor. A tenth of them are triggered."""
    generator = np.random.default_rng(3)
    calibration = generator.gamma(4, 1, 400)
    suspects = 2.5 + 1.8 * generator.gamma(4, 1, 400)
    suspects[:40] += 60
    naive = conformal_p(calibration, suspects)
    repaired = own_majority(calibration, suspects, suspects)
    assert (naive[40:] <= 0.05).mean() > 0.3
    assert (repaired[40:] <= 0.05).mean() < 0.09
    assert (repaired[:40] <= 0.01).all()
