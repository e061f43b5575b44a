"""split_patients: no patient in two splits, the source's own splits kept, the rest carved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.data.arrays import ArrayImages
from lucency.data.split import split_patients
from lucency.errors import ConfigError, DataError
from lucency.records import SPLITS, Radiographs

FRACTIONS = {"validation": 0.1, "reference": 0.2, "test": 0.2}


def cohort(patients, splits=None):
    n = len(patients)
    return Radiographs(
        name="cohort",
        findings=("Mass",),
        image_ids=tuple(f"i{k}" for k in range(n)),
        patient_ids=tuple(patients),
        labels=np.zeros((n, 1), np.float32),
        splits=tuple(splits or [None] * n),
        views=(None,) * n,
        images=ArrayImages(np.zeros((n, 2, 2), np.uint8)),
    )


def by_patient(split):
    found = {}
    for patient, name in zip(split.patient_ids, split.splits, strict=True):
        assert found.setdefault(patient, name) == name
    return found


def counts(split):
    names = list(by_patient(split).values())
    return [names.count(name) for name in SPLITS]


def test_carves_fractions_of_the_patients():
    split = split_patients(cohort([f"p{k % 100}" for k in range(350)]), **FRACTIONS, seed=1)
    assert counts(split) == [50, 10, 20, 20]


def test_rows_that_the_source_holds_out_stay():
    patients = [f"p{k}" for k in range(100)]
    own = ["test"] * 30 + ["train"] * 40 + [None] * 30
    split = split_patients(cohort(patients, own), **FRACTIONS, seed=1)
    assert counts(split) == [49, 7, 14, 30]
    assert split.splits[:30] == ("test",) * 30


def test_only_reference_is_carved_where_the_source_has_the_others():
    own = ["test"] * 10 + ["validation"] * 10 + ["train"] * 30
    split = split_patients(cohort([f"p{k}" for k in range(50)], own), **FRACTIONS, seed=1)
    assert counts(split) == [24, 10, 6, 10]


def test_a_source_with_all_splits_is_unchanged():
    own = list(SPLITS) * 3
    patients = [f"p{k % 4}" for k in range(12)]
    assert split_patients(cohort(patients, own), **FRACTIONS, seed=9).splits == tuple(own)


def test_unassigned_and_train_films_of_a_patient_are_one_pool():
    split = split_patients(cohort(list("aabbccdd"), ["train", None] * 4), **FRACTIONS, seed=1)
    assert counts(split) == [1, 1, 1, 1]


@pytest.mark.parametrize("pair", [("test", "validation"), ("test", "train"), ("test", None)])
def test_a_patient_in_two_source_splits_is_an_error(pair):
    source = cohort(["x", "x", *"abcdefgh"], [*pair, *[None] * 8])
    with pytest.raises(DataError, match=r"cohort has 1 that are, for example 'x' in: .*test"):
        split_patients(source, **FRACTIONS, seed=1)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_patients_are_an_error(n):
    with pytest.raises(DataError, match="No patient would be left to train on"):
        split_patients(cohort([f"p{k}" for k in range(n)]), **FRACTIONS, seed=1)


def test_no_training_patient_is_an_error():
    with pytest.raises(DataError, match="left to train on"):
        split_patients(cohort(list("abc"), SPLITS[1:]), **FRACTIONS, seed=1)


def test_greedy_fractions_are_an_error():
    with pytest.raises(DataError, match="left to train on"):
        split_patients(
            cohort([f"p{k}" for k in range(9)]), validation=0.4, reference=0.4, test=0.4, seed=1
        )


@pytest.mark.parametrize("share", [0.0, 1.0, 20, -0.1, float("nan")])
def test_fractions_are_fractions(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_patients(cohort(list("abcdef")), **{**FRACTIONS, "test": share}, seed=1)


def test_a_negative_seed_is_an_error():
    with pytest.raises(ConfigError, match="seed"):
        split_patients(cohort(list("abcdef")), **FRACTIONS, seed=-1)


def test_the_seed_decides():
    source = cohort([f"p{k}" for k in range(60)])
    splits = [split_patients(source, **FRACTIONS, seed=seed).splits for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


@settings(max_examples=80, deadline=None)
@given(
    patients=st.lists(st.integers(0, 30).map(str), min_size=8, max_size=80),
    shuffle=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**32),
)
def test_disjoint_complete_and_blind_to_the_order_of_rows(patients, shuffle, seed):
    if len(set(patients)) < 8:
        return
    first = split_patients(cohort(patients), **FRACTIONS, seed=seed)
    assert min(counts(first)) >= 1
    assert None not in first.splits
    shuffle.shuffle(patients)
    assert by_patient(split_patients(cohort(patients), **FRACTIONS, seed=seed)) == by_patient(first)
