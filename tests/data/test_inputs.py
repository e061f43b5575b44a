"""Films into network inputs: order, rejected files by name, selection."""

from contextlib import contextmanager

import numpy as np
import pytest
from image_files import encoded, grey

from lucency.attacks.ledger import plain
from lucency.data.arrays import ArrayImages
from lucency.data.guard import FileImages
from lucency.data.inputs import read_inputs
from lucency.data.preprocess import InputContract
from lucency.errors import DataError
from lucency.records import Radiographs

CONTRACT = InputContract(size=16, crop=0.9)


def radiographs(images, n):
    return Radiographs(
        name="made up",
        findings=("Mass",),
        image_ids=tuple(f"film-{i}" for i in range(n)),
        patient_ids=tuple(f"patient-{i}" for i in range(n)),
        labels=np.zeros((n, 1), np.float32),
        splits=(None,) * n,
        views=(None,) * n,
        images=images,
    )


def read(images, n, rows, **more):
    return read_inputs(radiographs(images, n), np.array(rows), plain(CONTRACT), CONTRACT, **more)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 0, 2], [3, 3]])
def test_inputs_are_the_films_in_the_order_asked_for(rows, dtype):
    films = np.stack([grey(seed, (30, 24), dtype=dtype) for seed in range(5)])
    inputs, rejected = read(ArrayImages(films), 5, rows)
    assert rejected == ()
    assert inputs.rows.tolist() == rows
    assert inputs.images.dtype == dtype
    assert inputs.native_shapes.tolist() == [list(films.shape[1:])] * len(rows)
    for image, row in zip(inputs.images, rows, strict=True):
        np.testing.assert_array_equal(image, CONTRACT.to_network(films[row]))


def test_bad_files_and_other_depths_are_named_and_the_rest_is_read(tmp_path):
    contents = [encoded(grey(0)), b"no image", encoded(grey(2, dtype=np.uint16)), encoded(grey(3))]
    paths = [tmp_path / f"{k}.png" for k in range(5)]  # the last does not exist
    for path, content in zip(paths, contents, strict=False):
        path.write_bytes(content)
    with FileImages(paths, workers=1) as images:
        inputs, rejected = read(images, 5, range(5))
    assert inputs.rows.tolist() == [0, 3]
    assert len(inputs) == len(inputs.images) == len(inputs.native_shapes) == 2
    np.testing.assert_array_equal(inputs.images[1], CONTRACT.to_network(grey(3)))
    assert [r.image for r in rejected] == ["film-1", "film-2", "film-4"]
    assert rejected[1].reason == "uint16 pixels where the first film has uint8"


def test_nothing_readable_is_an_error_that_names_the_first(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with (
        FileImages([tmp_path / "a.png"], workers=1) as images,
        pytest.raises(DataError, match=r"made up, got none of 1 \(the first: film-0: "),
    ):
        read(images, 1, [0])
    with pytest.raises(DataError, match="none of 0"):
        read(ArrayImages(np.zeros((1, 20, 20), np.uint8)), 1, [])


def test_select_keeps_the_order_asked_for_and_leaves_out_what_is_absent():
    films = np.stack([grey(seed) for seed in range(6)])
    inputs, _ = read(ArrayImages(films), 6, [5, 1, 3])
    chosen = inputs.select(np.array([3, 0, 5]))
    assert chosen.rows.tolist() == [3, 5]
    np.testing.assert_array_equal(chosen.images, inputs.images[[2, 0]])
    np.testing.assert_array_equal(chosen.native_shapes, inputs.native_shapes[[2, 0]])
    assert len(inputs.select(np.array([], np.int64))) == 0


def test_progress_counts_every_film():
    told = []

    @contextmanager
    def progress(description, total):
        told.append((description, total))
        yield told.append

    read(ArrayImages(np.zeros((3, 20, 20), np.uint8)), 3, [0, 2], progress=progress)
    assert told == [("Reading films", 2), 1, 1]
