"""nih: the files as they are distributed, or a sentence that says what is not as distributed."""

import numpy as np
import pytest
from image_files import encoded, grey
from source_files import NIH_HEADER, nih_rows, write_nih

from lucency.data.nih import FINDINGS, NihSource, read_boxes
from lucency.errors import DataError


def _same(image, row):
    return image


def test_reads_labels_patients_views_and_lists(tmp_path):
    read = write_nih(tmp_path).load(0)
    assert read.findings == FINDINGS
    assert read.image_ids[:2] == ("00000000_000.png", "00000001_000.png")
    assert read.patient_ids[:3] == ("0", "0", "1")
    assert read.views[:2] == ("AP", "PA")
    assert read.splits == (*(None,) * 8, *("test",) * 4)
    assert not read.labels[0].any()
    assert np.flatnonzero(read.labels[1]).tolist() == [4, 13]
    assert np.flatnonzero(read.labels[2]).tolist() == [12]
    assert (read.rejected, read.notes) == ((), ())


def test_reads_the_2017_table_with_its_trailing_column(tmp_path):
    write_nih(tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").unlink()
    rows = [row + "," for row in nih_rows()]
    (tmp_path / "Data_Entry_2017.csv").write_text("\r\n".join([NIH_HEADER + ",", *rows]))
    assert len(NihSource(path=tmp_path).load(0)) == 12


def test_prefers_the_newer_table_and_says_so(tmp_path):
    source = write_nih(tmp_path)
    (tmp_path / "Data_Entry_2017.csv").write_text("not read")
    assert source.load(0).notes == (
        "Both label tables are there; Data_Entry_2017_v2020.csv was read.",
    )


def test_reads_one_flat_image_folder(tmp_path):
    source = write_nih(tmp_path)
    (tmp_path / "images").mkdir()
    for file in [*tmp_path.glob("images_*/images/*.png")]:
        file.rename(tmp_path / "images" / file.name)
    read = source.load(0)
    (film,) = read.images.read([3], _same)
    np.testing.assert_array_equal(film.image, grey(3))


def test_a_few_absent_images_are_rejected_by_name(tmp_path):
    source = write_nih(tmp_path)
    (tmp_path / "images_001/images/00000004_000.png").unlink()
    read = source.load(0)
    assert len(read) == 11
    assert [(r.image, r.reason) for r in read.rejected] == [
        ("00000004_000.png", "the file is missing")
    ]
    (film,) = read.images.read([4], _same)
    np.testing.assert_array_equal(film.image, grey(5))


def test_a_partial_download_is_one_note(tmp_path):
    source = write_nih(tmp_path, rows=nih_rows(30))
    read = source.load(0)
    assert (len(read), read.rejected) == (12, ())
    assert "18 of the 30 images" in read.notes[0]
    assert "00000012_000.png, 00000013_000.png, 00000014_000.png." in read.notes[0]


def test_without_the_test_list_nothing_is_assigned(tmp_path):
    source = write_nih(tmp_path)
    (tmp_path / "test_list.txt").unlink()
    read = source.load(0)
    assert set(read.splits) == {None}
    assert "test_list.txt is absent" in read.notes[0]


def _row(name="00000000_000.png", labels="Mass", patient="1"):
    return f"{name},{labels},0,{patient},58,M,PA,2,2,0.1,0.1"


HOSTILE = {
    "unknown label": ([_row(labels="Mass|Masss")], "line 2: one of the 14.*'Masss'; nearest: Mass"),
    "empty label": ([_row(labels="")], "line 2: one of the 14 findings"),
    "none and one": ([_row(labels="No Finding|Mass")], "line 2: one of the 14 findings"),
    "folder": ([_row(name="../00000000_000.png")], "line 2: Image Index must be a file name"),
    "blank": ([_row(name="")], "line 2: Image Index must be a file name"),
    "duplicate": ([_row(), _row()], "line 3: '00000000_000.png' is already on line 2"),
    "no patient": ([_row(), _row("b.png", patient="")], "line 3: Patient ID is blank"),
    "short": ([_row(), "b.png,Mass"], "line 3: 11 cells are expected"),
    "none there": ([_row("zzz.png")], "None of the 1 images"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_table_unlike_the_data_set_is_refused(tmp_path, name):
    rows, message = HOSTILE[name]
    with pytest.raises(DataError, match=message):
        write_nih(tmp_path, rows=rows).load(0)


def test_other_columns_are_refused(tmp_path):
    header = NIH_HEADER.replace("Patient ID", "Patient")
    with pytest.raises(DataError, match="Column 'Patient ID' is absent"):
        write_nih(tmp_path, header=header).load(0)


def test_an_image_in_both_lists_or_two_folders_is_refused(tmp_path):
    source = write_nih(tmp_path)
    listed = (tmp_path / "test_list.txt").read_text()
    (tmp_path / "train_val_list.txt").write_text(listed)
    with pytest.raises(DataError, match=r"train_val_list.txt, line 1: '00000008_000.png'"):
        source.load(0)
    (tmp_path / "train_val_list.txt").unlink()
    (tmp_path / "images_002/images/00000000_000.png").write_bytes(encoded(grey()))
    with pytest.raises(DataError, match="two image folders, images_001/images and images_002"):
        source.load(0)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither is there"):
        NihSource(path=tmp_path).load(0)


BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def test_boxes_are_read_and_infiltrate_is_infiltration(tmp_path):
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(BOX_HEADER + "a.png,Infiltrate,633.2,416.7,271.9,221.4,,,\n")
    (box,) = read_boxes(path)
    assert (box.image, box.finding) == ("a.png", "Infiltration")
    assert (box.box.x, box.box.y, box.box.width, box.box.height) == (633, 417, 272, 221)


@pytest.mark.parametrize(
    "row", ["Mass,a,1,1,1", "Mass,nan,1,1,1", "Mass,1,1,0,1", "Mass,1000,1,99,1", "Masss,1,1,1,1"]
)
def test_impossible_boxes_are_refused_with_the_line(tmp_path, row):
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(BOX_HEADER + f"a.png,{row},,,\n")
    with pytest.raises(DataError, match="line 2"):
        read_boxes(path)


def test_the_real_files(cxr_data):
    read = NihSource(path=cxr_data / "nih-cxr14").load(0)
    assert (len(read), len(read.rejected), read.notes) == (235, 0, ())
    assert read.splits.count("test") == 60
    assert int(read.labels[:, 6].sum()) == 140
    assert len(read_boxes(cxr_data / "nih-cxr14" / "BBox_List_2017.csv")) == 20
    film = next(iter(read.images.read([0], _same)))
    assert film.native_shape == (1024, 1024)
