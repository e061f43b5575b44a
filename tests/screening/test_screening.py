"""`lucency screen` from files to files, on a network whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from lucency.errors import ConfigError, DataError
from lucency.report.screen_record import ScreenedImage, ScreenReport
from lucency.runs import read_json, verify
from lucency.screening import ScreenSettings, describe_answer
from lucency.screening.films import FilmList, list_films
from lucency.screening.parts import Rows, here, split
from lucency.screening.worker import Job, Part
from screened_model import (
    NATIVE,
    PLACES,
    model_folder,
    reference,
    screen_images,
    suspects,
    write_films,
)
from toy_victims import films

SETTINGS = ScreenSettings(alpha=0.05, engine="torch")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screening")
    model_folder(folder / "model")
    reference(folder / "reference")
    suspects(folder / "suspects")
    (folder / "suspects" / "c-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    return folder


def _screen(place: Path, out: Path, settings: ScreenSettings = SETTINGS, run=here) -> Path:  # type: ignore[no-untyped-def]
    return screen_images(
        [place / "suspects"], place / "model", place / "reference", out, settings, run=run
    )


@pytest.fixture(scope="module")
def answer(place: Path) -> Path:
    return _screen(place, place / "out", SETTINGS.model_copy(update={"covering": "flagged"}))


def _lines(folder: Path) -> list[ScreenedImage]:
    text = (folder / "screen.jsonl").read_text(encoding="utf-8")
    return [ScreenedImage.model_validate_json(line) for line in text.splitlines()]


def test_a_line_for_each_image_in_order(answer: Path) -> None:
    lines = _lines(answer)
    names = [line.image for line in lines]
    assert names == sorted(names)
    assert len(lines) == 41
    assert [line.status for line in lines] == ["ok"] * 40 + ["rejected"]
    assert lines[-1].reason == "damaged or truncated"
    assert lines[-1].p_value is None


def test_triggered_images_are_flagged_named_and_placed(answer: Path) -> None:
    triggered = _lines(answer)[36:40]
    for line, (x, y) in zip(triggered, PLACES, strict=True):
        assert line.flagged
        assert line.evidence == "local"
        assert (line.finding, line.direction) == ("Effusion", "set")
        assert line.region is not None
        # In the image's own pixels, twice those of the network.
        assert line.region.x <= NATIVE * (x + 1) <= line.region.x + line.region.width
        assert line.region.y <= NATIVE * (y + 1) <= line.region.y + line.region.height
        assert line.logit is not None
        assert line.logit_without_region is not None
        assert line.logit - line.logit_without_region > 3
        assert line.transplant is not None
        assert line.transplant.transfers
        assert line.negative is not None
        assert "Effusion" in line.negative


def test_clean_images_are_flagged_at_about_alpha(answer: Path) -> None:
    clean = _lines(answer)[:36]
    assert sum(bool(line.flagged) for line in clean) <= 6
    assert all(line.q_value is not None and line.q_value >= line.p_value for line in clean)


def test_the_folder_is_whole_and_says_the_same_everywhere(answer: Path) -> None:
    assert verify(answer) == []
    lines, report = _lines(answer), read_json(answer / "report.json", ScreenReport)
    assert report.counts.screened == 40
    assert report.counts.rejected == 1
    assert report.counts.flagged == sum(bool(line.flagged) for line in lines)
    table = pl.read_parquet(answer / "screen.parquet")
    assert table["image"].to_list() == [line.image for line in lines]
    np.testing.assert_allclose(
        table["p_value"].drop_nulls().to_numpy(), [line.p_value for line in lines[:40]]
    )
    pictures = load_file(answer / "gallery.safetensors")
    assert len(report.gallery) == 24
    assert {case.screened.image for case in report.gallery[:4]} == {
        line.image for line in lines[36:40]
    }
    for case in report.gallery:
        assert pictures[f"{case.key}/image"].shape == (40, 40)
    page = (answer / "report.html").read_text(encoding="utf-8")
    assert "b-triggered-000.png" in page
    assert "Report:" in describe_answer(answer)


def test_a_finished_screening_is_left_as_it_is(place: Path, answer: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in answer.glob("[!.]*")}
    again = _screen(place, answer, SETTINGS.model_copy(update={"covering": "flagged"}))
    assert {p.name: p.stat().st_mtime_ns for p in again.glob("[!.]*")} == before


class Killed(Exception):
    pass


def test_a_killed_screening_goes_on_and_ends_the_same(place: Path, tmp_path: Path) -> None:
    done: list[Rows] = []

    def killed_after_one(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        yield from here(job, films, parts[:1])
        raise Killed

    def counted(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        done.extend(parts)
        yield from here(job, films, parts)

    with pytest.raises(Killed):
        _screen(place, tmp_path / "out", run=killed_after_one)
    assert not (tmp_path / "out" / "screen.jsonl").exists()
    continued = _screen(place, tmp_path / "out", run=counted)
    assert done == split(41)[1:]
    whole = _screen(place, tmp_path / "whole")
    assert _timeless(continued) == _timeless(whole)
    assert not (continued / "checkpoint").exists()


def test_other_settings_start_anew(place: Path, tmp_path: Path) -> None:
    def killed_after_one(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        yield from here(job, films, parts[:1])
        raise Killed

    done: list[Rows] = []

    def counted(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        done.extend(parts)
        yield from here(job, films, parts)

    with pytest.raises(Killed):
        _screen(place, tmp_path / "out", run=killed_after_one)
    _screen(place, tmp_path / "out", SETTINGS.model_copy(update={"seed": 3}), run=counted)
    assert done == split(41)


def test_parts_may_come_in_any_order(place: Path, answer: Path, tmp_path: Path) -> None:
    def backwards(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        yield from here(job, films, parts[::-1])

    turned = _screen(place, tmp_path / "out", run=backwards)
    assert _timeless(turned) == _timeless(_screen(place, tmp_path / "straight"))


def _timeless(folder: Path) -> list[ScreenedImage]:
    return [line.model_copy(update={"seconds": None}) for line in _lines(folder)]


def test_a_suspect_among_the_reference_is_said(place: Path, tmp_path: Path) -> None:
    clean = place / "reference"
    out = screen_images(
        [sorted(clean.iterdir())[0], place / "suspects" / "a-clean-000.png"],
        place / "model",
        clean,
        tmp_path / "out",
        SETTINGS,
    )
    report = read_json(out / "report.json", ScreenReport)
    assert report.reference.n_overlap == 1
    assert any("copies of reference films" in warning for warning in report.reference.warnings)
    assert report.shift.p_value is None
    assert report.shift.reason is not None


def test_darker_films_are_another_kind(place: Path, tmp_path: Path) -> None:
    """The suspects' greys are squeezed: the shift is seen, named, and the majority stands in."""
    dark = (films(60, 0xDA).astype(np.float64) * 0.6 + 10).astype(np.uint8)
    write_films(tmp_path / "dark", dark)
    for calibrate in ("reference", "suspects"):
        out = screen_images(
            [tmp_path / "dark"],
            place / "model",
            place / "reference",
            tmp_path / calibrate,
            SETTINGS.model_copy(update={"calibrate": calibrate}),
        )
        report = read_json(out / "report.json", ScreenReport)
        assert report.shift.shifted
        assert report.shift.sentence is not None
        assert "not exact" in report.shift.sentence
        flagged = report.counts.flagged
        if calibrate == "suspects":
            assert flagged <= 9


def test_patients_and_views_come_from_the_table(place: Path, tmp_path: Path) -> None:
    folder = write_films(tmp_path / "clean", films(140, 0xC1EA))
    rows = [f"film-{i:03d}.png,P{i // 2},{'PA' if i % 4 < 2 else 'AP'}" for i in range(140)]
    (folder / "labels.csv").write_text("image,patient_id,view\n" + "\n".join(rows) + "\n")
    listed = list_films([folder])
    assert listed.patients[:3] == ("P0", "P0", "P1")
    assert listed.views[:4] == ("PA", "PA", "AP", "AP")
    out = screen_images(
        [place / "suspects" / "a-clean-000.png"],
        place / "model",
        folder,
        tmp_path / "out",
        SETTINGS,
    )
    report = read_json(out / "report.json", ScreenReport)
    assert report.reference.n_patients == 70
    assert report.reference.n_calibration < 70


def test_names_can_be_hidden(place: Path, tmp_path: Path) -> None:
    out = _screen(place, tmp_path / "out", SETTINGS.model_copy(update={"hide_names": True}))
    assert [line.image for line in _lines(out)] == [f"image {i + 1}" for i in range(41)]
    for name in ("screen.jsonl", "report.json", "report.html"):
        assert "b-triggered" not in (out / name).read_text(encoding="utf-8")


def _refused(place: Path, tmp_path: Path, images: list[Path]) -> None:
    screen_images(images, place / "model", place / "reference", tmp_path / "o", SETTINGS)


class TestRefusals:
    def test_no_such_place(self, place: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is none"):
            screen_images(
                [tmp_path / "absent"],
                place / "model",
                place / "reference",
                tmp_path / "o",
                SETTINGS,
            )

    def test_an_empty_folder(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="must hold PNG or JPEG images"):
            _refused(place, tmp_path, [tmp_path / "empty"])

    def test_no_model(self, place: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"model\.toml"):
            screen_images(
                [place / "suspects"], tmp_path, place / "reference", tmp_path / "o", SETTINGS
            )

    def test_a_reference_of_broken_files(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "x.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match="At least one readable reference film"):
            screen_images(
                [place / "suspects"], place / "model", tmp_path / "bad", tmp_path / "o", SETTINGS
            )


def test_only_broken_images_still_give_an_answer(place: Path, tmp_path: Path) -> None:
    out = screen_images(
        [place / "suspects" / "c-broken.png"],
        place / "model",
        place / "reference",
        tmp_path / "out",
        SETTINGS,
    )
    report = read_json(out / "report.json", ScreenReport)
    assert report.counts.screened == 0
    assert report.cost.reason is not None
    assert json.loads((out / "screen.jsonl").read_text())["status"] == "rejected"
    assert verify(out) == []


def test_the_whole_test_of_all_images(place: Path, answer: Path, tmp_path: Path) -> None:
    whole = _screen(place, tmp_path / "o", SETTINGS.model_copy(update={"examine": "all"}))
    some, every = (read_json(f / "report.json", ScreenReport).cost for f in (answer, whole))
    assert some.backwards is not None
    assert some.backwards < 3  # one a look, and three more for the whole test
    assert every.backwards == 4
    scores = [line.scores for line in _lines(whole) if line.status == "ok"]
    assert all(s["T1 counterfactual patch"] >= 0 for s in scores)
    flagged = [line.image for line in _lines(whole) if line.flagged]
    assert sum(name.startswith("b-triggered") for name in flagged) == 4
