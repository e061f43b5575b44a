"""folder: a hostile labels.csv is refused with its line, a missing file costs only itself."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import encoded, grey
from pydantic import ValidationError
from source_files import write_folder

from lucency.data.folder import FolderSource
from lucency.errors import DataError, LucencyError

HEAD = "image,patient_id,split,view,sex,age,Edema,Mass\n"


@pytest.fixture
def load(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(encoded(grey()))

    def _load(table, **settings):
        data = table if isinstance(table, bytes) else table.encode()
        (tmp_path / "labels.csv").write_bytes(data)
        return FolderSource(path=tmp_path, **settings).load(seed=0)

    return _load


def test_reads_every_column(load):
    read = load(HEAD + "a.png,7,train,PA,F,50,1,0\nb.png,8,val,,,,,-1\nc.png,8,,AP,M,3,0.0,1.0\n")
    assert read.image_ids == ("a.png", "b.png", "c.png")
    assert read.patient_ids == ("7", "8", "8")
    assert read.findings == ("Edema", "Mass")
    assert read.splits == ("train", "validation", None)
    assert read.views == ("PA", None, "AP")
    np.testing.assert_array_equal(read.labels, [[1, 0], [np.nan, np.nan], [0, 1]])
    assert read.labels.dtype == np.float32
    assert read.notes == ("2 of 6 labels are blank or -1 and count as not known.",)


def test_split_and_view_are_optional(load):
    read = load("Mass,patient_id,image\n1,p,a.png\n")
    assert (read.splits, read.views, read.labels.tolist()) == ((None,), (None,), [[1.0]])


def test_reads_windows_files_with_a_byte_order_mark(load):
    table = (HEAD + "a.png,7,test,PA,F,50,1,0\n\n").replace("\n", "\r\n")
    read = load(b"\xef\xbb\xbf" + table.encode())
    assert read.image_ids == ("a.png",)


def test_findings_are_chosen_and_ordered_by_the_settings(load):
    read = load(HEAD + "a.png,7,,,,,1,0\n", findings=("Mass", "Edema"))
    assert read.findings == ("Mass", "Edema")
    assert read.labels.tolist() == [[0, 1]]


def test_other_columns_are_ignored_when_findings_are_named(load):
    read = load("image,patient_id,Mass,remark\na.png,p,1,hello\n", findings=("Mass",))
    assert read.labels.tolist() == [[1]]


def test_missing_files_are_rejected_and_the_rest_goes_on(load):
    read = load(HEAD + "a.png,7,,,,,1,0\ngone.png,8,,,,,,1\nno/b.png,8,,,,,,1\nc.png,9,,,,,0,1\n")
    assert read.image_ids == ("a.png", "c.png")
    assert read.patient_ids == ("7", "9")
    assert read.labels[:, 1].tolist() == [0, 1]
    assert [(r.image, r.reason) for r in read.rejected] == [
        ("gone.png", "the file is missing"),
        ("no/b.png", "the file is missing"),
    ]
    assert [film.index for film in read.images.read([0, 1], _same)] == [0, 1]


def _same(image, row):
    return image


ROW = "a.png,7,,,,,1,0\n"
HOSTILE = {
    "parent": (HEAD + ROW + "../b.png,7,,,,,1,0\n", "line 3: the image must be a path inside"),
    "inner parent": (HEAD + "x/../../b.png,7,,,,,1,0\n", "line 2: the image must be"),
    "backslash parent": (HEAD + "..\\b.png,7,,,,,1,0\n", "line 2: the image must be"),
    "absolute": (HEAD + "/etc/passwd,7,,,,,1,0\n", "line 2: the image must be"),
    "drive": (HEAD + "C:\\b.png,7,,,,,1,0\n", "line 2: the image must be"),
    "home": (HEAD + "~/b.png,7,,,,,1,0\n", "line 2: the image must be"),
    "blank image": (HEAD + ",7,,,,,1,0\n", "line 2: the image must be"),
    "nul": (HEAD + "a.png\0,7,,,,,1,0\n", r"line 2: a cell has the control character '\\x00'"),
    "escape": (HEAD + "a.png,\x1b[31m7,,,,,1,0\n", "line 2: a cell has the control"),
    "newline in cell": (HEAD + '"a\n.png",7,,,,,1,0\n', "line 3: a cell has the control"),
    "right to left": (HEAD + "a\u202e.png,7,,,,,1,0\n", "line 2: a cell has the control"),
    "duplicate": (HEAD + ROW + ROW, "line 3: image 'a.png' is already on line 2"),
    "duplicate spelling": (HEAD + ROW + "./" + ROW, "line 3: image 'a.png' is already on line 2"),
    "label 2": (HEAD + "a.png,7,,,,,2,0\n", "line 2: label 'Edema' must be 0, 1, -1 or blank"),
    "label yes": (HEAD + ROW + "b.png,7,,,,,0,yes\n", "line 3: label 'Mass' must be"),
    "label nan": (HEAD + "a.png,7,,,,,0,nan\n", "line 2: label 'Mass' must be"),
    "formula": (HEAD + "a.png,7,,,,,=1+1,0\n", "line 2: label 'Edema' must be"),
    "split": (HEAD + "a.png,7,tets,,,,1,0\n", "line 2: split must be .*nearest: test"),
    "no patient": (HEAD + "a.png,,,,,,1,0\n", "line 2: patient_id is blank"),
    "few cells": (HEAD + "a.png,7\n", "line 2: 8 cells are expected.*has 2"),
    "many cells": (HEAD + "a.png,7,,,,,1,0,1\n", "line 2: 8 cells are expected.*has 9"),
    "open quote": (HEAD + '"a.png,7,,,,,1,0\n' + ROW, "line 3: not a CSV row"),
    "giant cell": (HEAD + "a" * 200_000 + ",7,,,,,1,0\n", "line 2: not a CSV row"),
    "no image column": ("images,patient_id,Mass\n", "Column 'image' is absent.*nearest: images"),
    "no patient column": ("image,Mass\na.png,1\n", "'patient_id' is absent.*Films of one patient"),
    "no label column": ("image,patient_id\na.png,1\n", "has no label column"),
    "column twice": ("image,patient_id,Mass,Mass\na.png,1,0,0\n", "'Mass' is there twice"),
    "many columns": (
        "image,patient_id," + ",".join(map(str, range(10**6))),
        "at most 10000 columns",
    ),
    "empty": ("", "line 1: a header is expected"),
    "no rows": (HEAD, "None of the 0 images"),
    "no file exists": (HEAD + "x.png,7,,,,,1,0\n", "None of the 1 images.*'x.png'"),
    "latin-1": (HEAD.encode() + b"\xe9.png,7,,,,,1,0\n", "not UTF-8"),
    "utf-16": (HEAD.encode("utf-16"), "not UTF-8"),
    "binary": (bytes(range(256)) * 20, "labels.csv"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_is_refused_in_a_sentence(load, name):
    table, message = HOSTILE[name]
    with pytest.raises(DataError, match=message) as error:
        load(table)
    assert "\0" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_an_absent_label_column_is_named_with_the_nearest(load):
    with pytest.raises(DataError) as error:
        load(HEAD + ROW, findings=("Mass", "Odema"))
    assert str(error.value) == (
        "Label column 'Odema' is absent from labels.csv; it has: Edema, Mass; nearest: Edema."
    )


@pytest.mark.parametrize("findings", [(), ("Mass", "Mass")])
def test_findings_must_be_distinct(findings, tmp_path):
    with pytest.raises(ValidationError):
        FolderSource(path=tmp_path, findings=findings)


def test_an_absent_or_odd_table_is_refused_without_waiting(tmp_path):
    with pytest.raises(DataError, match=r"labels.csv is expected in"):
        FolderSource(path=tmp_path / "nowhere").load(0)
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="regular file"):
        FolderSource(path=tmp_path).load(0)
    with pytest.raises(DataError, match="expected"):
        FolderSource(path=tmp_path / "a\0b").load(0)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=5), st.booleans())
def test_any_text_gives_a_data_set_or_a_sentence(load, rows, headed):
    table = "image,patient_id,split,view,Mass\na.png,1,,,1\n" if headed else ""
    table += "\n".join(",".join(row) for row in rows)
    try:
        read = load(table.encode("utf-8", "surrogatepass"))
    except LucencyError:
        return  # anything else fails the test
    assert len(read) + len(read.rejected) >= 1
    assert not any(".." in name.split("/") for name in read.image_ids)


def test_a_hundred_thousand_rows_are_read(tmp_path):

    (tmp_path / "a.png").write_bytes(encoded(grey()))
    rows = "".join(f"i/{k}.png,{k // 3},,PA,,,{k % 2},0\n" for k in range(100_000))
    (tmp_path / "labels.csv").write_text(HEAD + "a.png,0,,,,,1,1\n" + rows)
    read = FolderSource(path=tmp_path).load(0)
    assert (len(read), len(read.rejected)) == (1, 100_000)


def test_generated_folder(tmp_path):
    read = write_folder(tmp_path).load(0)
    assert np.isnan(read.labels[:, 1]).all()


def test_the_real_folder(cxr_data):
    read = FolderSource(path=cxr_data / "nih-cxr14-256").load(0)
    assert (len(read), len(read.findings), len(read.rejected)) == (693, 14, 0)
    assert read.findings[0] == "Atelectasis"
    assert {"train", "test"} <= set(read.splits)
