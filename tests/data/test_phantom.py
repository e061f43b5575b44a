"""The phantom cohort: a function of seed and row, with the stated labels, and visible findings."""

import itertools
import pickle
import tomllib

import numpy as np
import pytest
from pydantic import ValidationError

from lucency.attacks.ledger import plain
from lucency.data import phantom_anatomy, phantom_findings
from lucency.data.phantom import CORRELATION, PATIENT_SHARE, PREVALENCE, PhantomSource
from lucency.data.phantom_anatomy import Film
from lucency.data.phantom_film import draw_film
from lucency.data.phantom_findings import FINDINGS
from lucency.data.preprocess import InputContract
from lucency.records import Radiographs

NAMES = tuple(PREVALENCE)
OTHERS = [n for n in NAMES if n != "Cardiomegaly"]  # which is anatomy, not paint


@pytest.fixture(scope="module")
def cohort() -> Radiographs:
    return PhantomSource(images=60_000, size=64).load(5)


@pytest.fixture(scope="module")
def small() -> Radiographs:
    return PhantomSource(images=60, size=64).load(5)


def test_labels_patients_and_views_depend_on_the_seed_alone(small):
    again, other = (PhantomSource(images=60, size=64).load(seed) for seed in (5, 6))
    for field in ("image_ids", "patient_ids", "views"):
        assert getattr(again, field) == getattr(small, field)
    np.testing.assert_array_equal(again.labels, small.labels)
    assert (other.labels != small.labels).any()


def test_a_film_depends_on_seed_and_row_in_any_order(small):
    forward = {row: small.images.draw(row) for row in range(60)}
    again = PhantomSource(images=60, size=64).load(5)
    for row in np.random.default_rng(0).permutation(60).tolist():
        np.testing.assert_array_equal(again.images.draw(row), forward[row])
    other = PhantomSource(images=60, size=64).load(6)
    assert (other.images.draw(0) != forward[0]).any()
    assert all((forward[a] != forward[b]).any() for a, b in itertools.combinations(range(60), 2))


@pytest.mark.parametrize("size", [64, 97, 160])
def test_films_are_uint8_of_the_size_asked_for(size):
    film = PhantomSource(images=50, size=size).load(0).images.draw(3)
    assert (film.shape, film.dtype) == ((size, size), np.uint8)
    assert film.std() > 20
    # Not clipped away: few pixels at either end.
    assert ((film == 0) | (film == 255)).mean() < 0.5


def test_prevalence_is_that_of_the_table(cohort):
    for share, (name, expected) in zip(cohort.labels.mean(axis=0), PREVALENCE.items(), strict=True):
        # Films of a patient are alike, so the deviation is wider than binomial.
        deviation = 2 * np.sqrt(expected * (1 - expected) / len(cohort))
        assert share == pytest.approx(expected, abs=4 * deviation), name
    assert (cohort.labels.sum(axis=1) == 0).mean() == pytest.approx(0.51, abs=0.03)
    assert set(np.unique(cohort.labels)) == {0.0, 1.0}
    assert cohort.findings == NAMES


def test_the_stated_pairs_co_occur(cohort):
    labels = cohort.labels
    for a, b in CORRELATION:
        i, j = NAMES.index(a), NAMES.index(b)
        together = (labels[:, i] * labels[:, j]).mean()
        assert together > 1.2 * labels[:, i].mean() * labels[:, j].mean(), (a, b)


def test_patients_have_several_films_that_are_alike(cohort):
    patients, counts = np.unique(cohort.patient_ids, return_counts=True)
    assert 2.0 < counts.mean() < 2.4
    assert counts.min() == 1
    assert list(cohort.patient_ids) == sorted(cohort.patient_ids)
    first = np.flatnonzero(np.array(cohort.patient_ids[1:]) == np.array(cohort.patient_ids[:-1]))
    effusion = cohort.labels[:, NAMES.index("Effusion")]
    repeated = effusion[first + 1][effusion[first] == 1].mean()
    assert PATIENT_SHARE > 0
    assert repeated > 2 * PREVALENCE["Effusion"]
    assert len(patients) < len(cohort)


def test_both_views_and_more_bedside_films_among_the_ill(cohort):
    ap = np.array(cohort.views) == "AP"
    assert set(cohort.views) == {"PA", "AP"}
    n_findings = cohort.labels.sum(axis=1)
    assert ap[n_findings == 0].mean() == pytest.approx(0.35, abs=0.02)
    assert ap[n_findings == 2].mean() == pytest.approx(0.59, abs=0.02)


def draw(findings, seed=0, ap=False, size=96):
    film = Film(size, ap, frozenset(findings))
    return draw_film(film, np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2]))


@pytest.mark.parametrize("name", NAMES)
def test_each_finding_changes_the_film(name):
    for seed in range(3):
        assert (draw([name], seed) != draw([], seed)).mean() > 0.01


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("seed", range(3))
def test_each_finding_is_painted_and_can_be_seen(name, seed, monkeypatch):
    """Against a film on which the same finding drew its random numbers and painted nothing."""
    painted = draw([name], seed).astype(int)
    paint = FINDINGS[name]

    def draw_numbers_only(plane, canvas):
        paint(plane, canvas)
        return plane

    monkeypatch.setitem(phantom_findings.FINDINGS, name, draw_numbers_only)
    difference = np.abs(painted - draw([name], seed))
    assert difference.max() > 10
    assert (difference > 5).mean() > 0.001
    assert (difference > 5).mean() < 0.5


def test_cardiomegaly_widens_the_heart():
    def heart(findings, seed):
        rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        return phantom_anatomy.draw_anatomy(Film(96, False, frozenset(findings)), *rng).heart

    for seed in range(20):
        assert heart(["Cardiomegaly"], seed)[2] > 1.15 * heart([], seed)[2]


def test_every_finding_of_the_table_has_a_painter():
    assert set(FINDINGS) == set(PREVALENCE)
    assert {name for pair in CORRELATION for name in pair} <= set(PREVALENCE)


def test_a_view_changes_the_film():
    assert (draw([], ap=True) != draw([])).mean() > 0.5


def test_workers_draw_the_same_films(small):
    contract = InputContract(size=64)
    rows = [7, 3, 59, 3]
    for row, outcome in zip(rows, small.images.read(rows, plain(contract)), strict=True):
        assert (outcome.index, outcome.native_shape) == (row, (64, 64))
        np.testing.assert_array_equal(outcome.image, small.images.draw(row))


def test_a_second_read_starts_no_process(small):
    contract = InputContract(size=64)
    workers = small.images._drawing

    def processes():
        return {w._process.pid for w in workers._pool._workers if w._process is not None}

    list(small.images.read([0, 1], plain(contract)))
    before = processes()
    list(small.images.read([2], plain(contract)))
    assert before
    assert processes() == before
    assert len(pickle.dumps(small.images)) < 100_000


def test_the_source_is_a_config_and_bad_ones_are_refused():
    text = 'source = "phantom"\nimages = 80\nsize = 70'
    assert PhantomSource.model_validate(tomllib.loads(text)) == PhantomSource(images=80, size=70)
    for bad in ({"images": 49}, {"size": 63}, {"size": 1025}, {"images": 200_001}, {"seed": 1}):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            PhantomSource.model_validate(bad)
