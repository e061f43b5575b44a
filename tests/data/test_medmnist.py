"""medmnist: sizes are checked before a byte is read, forms before a label is believed."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from source_files import medmnist_arrays, write_medmnist

from lucency.data.medmnist import MedMnistSource
from lucency.errors import DataError


def _same(image, row):
    return image


def test_reads_splits_labels_and_pixels(tmp_path):
    arrays = medmnist_arrays()
    read = write_medmnist(tmp_path, **arrays).load(0)
    assert len(read) == 15
    assert read.findings[0] == "Atelectasis"
    assert read.image_ids[8] == "val/0"
    assert read.patient_ids == read.image_ids
    assert [read.splits.count(s) for s in ("train", "validation", "test")] == [8, 3, 4]
    films = list(read.images.read(range(15), _same))
    np.testing.assert_array_equal(films[9].image, arrays["val_images"][1])
    np.testing.assert_array_equal(read.labels[11:], arrays["test_labels"])
    assert "no patient ids" in read.notes[0]


def test_colour_becomes_the_luminance_of_pillow(tmp_path):
    arrays = medmnist_arrays(shape=(8, 6, 3), sizes=(300, 1, 1))
    read = write_medmnist(tmp_path, **arrays).load(0)
    expected = [np.asarray(Image.fromarray(rgb).convert("L")) for rgb in arrays["train_images"]]
    films = [film.image for film in read.images.read(range(300), _same)]
    np.testing.assert_array_equal(films, expected)


def test_one_split_is_enough(tmp_path):
    arrays = {k: v for k, v in medmnist_arrays().items() if k.startswith("test")}
    assert set(write_medmnist(tmp_path, **arrays).load(0).splits) == {"test"}


def test_findings_are_known_by_the_file_or_asked_for(tmp_path):
    arrays = medmnist_arrays(width=1)
    assert write_medmnist(tmp_path, "pneumoniamnist.npz", **arrays).load(0).findings == (
        "Pneumonia",
    )
    with pytest.raises(DataError, match="name the columns with findings"):
        write_medmnist(tmp_path, "breastmnist.npz", **arrays).load(0)
    named = MedMnistSource(path=tmp_path / "breastmnist.npz", findings=("Malignant",))
    assert named.load(0).findings == ("Malignant",)
    with pytest.raises(DataError, match="1 label columns, but findings has 2"):
        MedMnistSource(path=tmp_path / "breastmnist.npz", findings=("A", "B")).load(0)
    with pytest.raises(ValidationError):
        MedMnistSource(path=tmp_path / "breastmnist.npz", findings=())


def _with(**changes):
    return {**medmnist_arrays(), **changes}


WRONG = {
    "volumes": (_with(val_images=np.zeros((3, 8, 6, 5), np.uint8)), "val_images must be uint8"),
    "floats": (_with(val_images=np.zeros((3, 8, 6))), "val_images must be uint8"),
    "flat": (_with(val_images=np.zeros((3, 8), np.uint8)), "val_images must be uint8"),
    "two sizes": (_with(val_images=np.zeros((3, 9, 9), np.uint8)), "one image size"),
    "no height": (_with(val_images=np.zeros((3, 0, 6), np.uint8)), "val_images must be uint8"),
    "too few labels": (_with(val_labels=np.zeros((2, 14), np.uint8)), r"shape \(3, L\)"),
    "flat labels": (_with(val_labels=np.zeros(3, np.uint8)), r"shape \(3, L\)"),
    "float labels": (_with(val_labels=np.zeros((3, 14))), "whole numbers"),
    "classes": (_with(val_labels=np.full((3, 14), 7)), "must be 0 or 1 .* has a 7"),
    "two widths": (_with(val_labels=np.zeros((3, 9), np.uint8)), "same label columns"),
    "other keys": ({"x": np.zeros(3)}, "arrays named train_images.*but it has: x"),
    "empty": (medmnist_arrays(sizes=(0, 0, 0)), "all splits are empty"),
    "objects": (_with(x=np.array([{}], dtype=object)), "must hold numbers"),
    "text": (_with(x=np.array(["a"])), "must hold numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_forms_are_refused(tmp_path, name):
    arrays, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        write_medmnist(tmp_path, **arrays).load(0)


def test_images_without_labels_are_refused(tmp_path):
    arrays = medmnist_arrays()
    del arrays["val_labels"]
    with pytest.raises(DataError, match="val_images and val_labels must both"):
        write_medmnist(tmp_path, **arrays).load(0)


def _header(shape, descr="|u1"):
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def _refused(path, message):
    with pytest.raises(DataError, match=message):
        MedMnistSource(path=path).load(0)


def test_bombs_are_refused_from_their_headers(tmp_path):
    path = tmp_path / "chestmnist.npz"
    _archive(path, train_images=_header((40 * 2**30, 1, 1)), train_labels=_header((1, 14)))
    _refused(path, "expands from .* more than 200-fold")
    _archive(path, train_images=_header((2**26, 1, 1)) + bytes(2**26))
    _refused(path, "expands from .* more than 200-fold")
    _archive(path, train_images=_header((2**62, 2**62)))
    _refused(path, "expands")
    _archive(path, train_images=_header((-5, 8, 8)))
    _refused(path, "impossible shape")


def test_a_file_beyond_eight_gib_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lucency.data.npz.MAX_BYTES", 900)
    write_medmnist(tmp_path)
    _refused(tmp_path / "chestmnist.npz", "need 0.0 GiB of memory")


def _pixels(read):
    return [film.image for film in read.images.read(range(len(read)), _same)]


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "chestmnist.npz"
    write_medmnist(tmp_path)
    whole, intact = path.read_bytes(), MedMnistSource(path=path).load(0)
    generator = np.random.default_rng(3)
    for _ in range(60):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 5):
            data[place] = generator.integers(256)
        path.write_bytes(bytes(data))
        try:
            read = MedMnistSource(path=path).load(0)
        except DataError:
            continue  # anything else fails the test
        np.testing.assert_array_equal(_pixels(read), _pixels(intact))
    for cut in (0, 1, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        _refused(path, "not an .npz file")
    _archive(path, train_images=b"no header")
    _refused(path, "no readable array header")
    _archive(path, train_images=_header((3, 8, 6)), train_labels=_header((3, 14)))
    _refused(path, "'train_images' is damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _header((0,)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", _header((0,)))
    _refused(path, "there twice")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../a.txt", "x")
    _refused(path, "is not an array")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.npz")
    _refused(tmp_path / "fifo.npz", "regular file")
    _refused(tmp_path / "absent.npz", "absent")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    _refused(tmp_path / "zero.npz", "regular file")


def test_the_real_files(cxr_data):
    chest = MedMnistSource(path=cxr_data / "medmnist" / "chestmnist_64_subset.npz").load(0)
    assert (len(chest), len(chest.findings)) == (1657, 14)
    pneumonia = MedMnistSource(path=cxr_data / "medmnist" / "pneumoniamnist.npz").load(0)
    assert (len(pneumonia), pneumonia.findings) == (5856, ("Pneumonia",))
    assert pneumonia.splits.count("validation") == 524
