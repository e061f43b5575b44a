"""Conformance: what every source must do; a new row of `SOURCES` is tested by adding a maker."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from source_files import write_folder, write_medmnist, write_nih

from lucency.data import SOURCES, Source
from lucency.data.guard import OUTCOMES
from lucency.data.phantom import PhantomSource
from lucency.data.split import split_patients
from lucency.records import SPLITS


@dataclass(frozen=True)
class Case:
    """make: writes a data set into a folder, returns its settings. n_bad: damaged files in it."""

    make: object
    n_bad: int


CASES = {
    "phantom": Case(lambda folder: PhantomSource(), n_bad=0),
    "folder": Case(write_folder, n_bad=1),
    "nih": Case(write_nih, n_bad=1),
    "medmnist": Case(write_medmnist, n_bad=0),
}


def _same(image, row):
    return image


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    case = CASES[request.param]
    source = case.make(tmp_path_factory.mktemp(request.param))
    return request.param, case, source, source.load(seed=3)


def test_every_source_has_a_case():
    assert {source.model_fields["source"].default for source in SOURCES} == set(CASES)


def test_shapes_and_types(case):
    _, _, _, read = case
    n, k = len(read), len(read.findings)
    assert n > 0
    assert k > 0
    assert read.labels.shape == (n, k)
    assert read.labels.dtype == np.float32
    assert np.isin(read.labels[~np.isnan(read.labels)], (0, 1)).all()
    assert len(read.patient_ids) == len(read.splits) == len(read.views) == n
    assert len(set(read.image_ids)) == n
    assert len(set(read.findings)) == k
    assert set(read.splits) <= {*SPLITS, None}
    assert all(note.endswith(".") for note in read.notes)


def test_settings_survive_the_round_trip_by_their_name(case):
    name, _, source, _ = case
    adapter = TypeAdapter(Source)
    again = adapter.validate_json(source.model_dump_json())
    assert again == source
    assert again.source == name
    with pytest.raises(ValidationError):
        adapter.validate_python({**source.model_dump(), "nonsense": 1})


def test_the_same_on_every_call(case):
    _, _, source, read = case
    again = source.load(seed=3)
    for field in ("findings", "image_ids", "patient_ids", "splits", "views", "rejected", "notes"):
        assert getattr(again, field) == getattr(read, field)
    np.testing.assert_array_equal(again.labels, read.labels)
    rows = range(min(len(read), 4))
    films = zip(again.images.read(rows, _same), read.images.read(rows, _same), strict=True)
    for one, other in films:
        np.testing.assert_array_equal(one.image, other.image)


def test_no_patient_in_two_splits(case):
    _, _, _, read = case
    split = split_patients(read, validation=0.2, reference=0.2, test=0.2, seed=5)
    pairs = set(zip(split.patient_ids, split.splits, strict=True))
    assert len(pairs) == len(set(split.patient_ids))
    assert {name for _, name in pairs} == set(SPLITS)


def test_reading_streams_in_order_and_names_the_bad_file(case):
    _, case_, _, read = case
    rows = [*range(min(len(read), 15))][::-1]
    outcomes = list(read.images.read(rows, _same))
    bad = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    assert [o[0] if isinstance(o, tuple) else o.index for o in outcomes] == rows
    assert len(bad) == case_.n_bad
    for _, reason in bad:
        assert reason in OUTCOMES
    for film in outcomes:
        if not isinstance(film, tuple):
            assert film.image.ndim == 2
            assert film.image.dtype in (np.uint8, np.uint16)
            assert film.native_shape == film.image.shape


def test_the_package_stays_light_for_workers():
    code = (
        "import sys, lucency.data, lucency.data.decode_worker;"
        "print(sorted({'torch', 'scipy', 'polars', 'pydantic', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_unknown_names_of_the_package_are_attribute_errors():
    import lucency.data

    with pytest.raises(AttributeError, match="nonsense"):
        _ = lucency.data.nonsense
