"""The page of a screening: complete, the same bytes every time, honest, and harmless."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from make_screen import make_screen, write_report
from payloads import PAYLOADS, Structure, unsafe
from safetensors.numpy import save_file

from lucency.errors import IntegrityError
from lucency.records import Box
from lucency.report import chance, overlay, screen_figures, screen_page, screen_words
from lucency.report.screen_page import render_screen
from lucency.report.screen_record import ScreenReport
from lucency.report.screen_table import COLUMNS
from lucency.report.text import plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screen")
    make_screen(folder, side=64)
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return render_screen(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    make_screen(tmp_path, n_images=20, n_triggered=6, n_cases=4, side=32, n_calibration=119)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out: it is slow, and tested elsewhere."""
    blank = overlay.scale_bar()
    monkeypatch.setattr(screen_page, "_drawings", lambda *_: {})
    monkeypatch.setattr(overlay, "picture", lambda *_: blank)
    monkeypatch.setattr(overlay, "close_up", lambda *_: blank)


def record(folder: Path) -> dict[str, Any]:
    report = ScreenReport.model_validate_json((folder / "report.json").read_bytes())
    return report.model_dump(by_alias=True)


def page(folder: Path, values: dict[str, Any] | None = None) -> str:
    """The text of a page, after `values` were written as its record."""
    if values is not None:
        write_report(folder, ScreenReport.model_validate(values))
    structure = Structure(render_screen(folder))
    assert unsafe(structure) == []
    assert "None" not in structure.text.replace("None of", "")
    assert "backdoor-free" not in structure.text
    return structure.text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("module", [chance, screen_words])
def test_examples(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted > 0
    assert results.failed == 0


# --- what it says -------------------------------------------------------------------------------


def test_well_formed_and_closed(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    assert unsafe(Structure(html)) == []
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "Lucency screening report" in style


def test_order(html: str) -> None:
    text = Structure(html).text.replace("\N{NO-BREAK SPACE}", " ")
    steps = [
        "Screening of 120 images", "Limits, to be read first", "Tested for patches",
        "11 of 120 images were flagged at α = 1 %; about 1.2 false alarms are expected if all are "
        "clean.", "Warnings.", "Images flagged", "The batch", "p-values, 120 images", "Gallery",
        "1. Flagged", "All images", "Files that could not be used", "Model", "Reference set",
        "Cost", "How to run it again", "Terms", "References",
    ]  # fmt: skip
    at = -1
    for step in steps:
        at = text.index(step, at + 1)


def test_what_was_measured_is_said(html: str) -> None:
    text = Structure(html).text.replace("\N{NO-BREAK SPACE}", " ")
    for fact in (
        "p = 0.0033; smallest possible with this reference set: 1/(299 + 1) = 0.0033",
        "At a false discovery rate of 5 % over the batch, 11 images remain",
        "In fewer than 0.1 % of batches of clean films like the reference set, 11 or more would be",
        "a small region carries the evidence on 9 images",
        "the evidence is spread over the whole image on 2 images",
        "Suspected most often: set Atelectasis (7 of 11)",
        "Of 7 flagged regions pasted on clean films, 6 act as a key there",
        "8.7 % of flagged images are triggered", "can be told apart (AUC 0.61)",
        "the region lowers Atelectasis by 5.2 SD", "the region raises Atelectasis by 5.2 SD",
        "It transfers", "It does not transfer", "a clean patch in its stead by 0.0 SD",
        "none: the evidence is spread over the whole image", "none: there is no region to paste",
        "none: there is no region to repair", "No square of up to 5 × 5 network pixels",
        "0.97 → 0.08", "14 × 14 px at x", "5 × 5 px at x", "Attribution, 64 × 64 cells",
        "Film, close-up, 32 × 32 px", "T1 counterfactual patch 35.8", "clear Atelectasis",
        "broken/00000.png", "truncated at 11,204 bytes", "Hernia: the column is blank",
        "openvino bf16", "460, of which 299 calibrate", "lucency screen images/", "scales = \"1, 3",
        "calibrate_by_view = false", "ray = null", "04b1", "20250611", "8.3 forwards",
        "The most suspicious of 299 clean films",
    ):  # fmt: skip
        assert fact in text, fact


def test_same_files_same_bytes(small: Path) -> None:
    assert render_screen(small) == render_screen(small)


def test_every_picture_says_what_it_is(html: str) -> None:
    alternatives = Structure(html).values("alt")
    assert all(alternatives)
    assert any(alt.startswith("Film of ward-7/") for alt in alternatives)


def test_the_most_suspicious_comes_first(small: Path, undrawn: None) -> None:
    values = record(small)
    values["gallery"] = values["gallery"][::-1]
    text = page(small, values)
    ordered = sorted(values["gallery"], key=lambda case: -case["screened"]["suspicion"])
    places = [text.index(f" {case['screened']['image']}\n") for case in ordered]
    assert places == sorted(places)
    table = text[text.index("All images", text.index("Gallery")) :]
    frame = pl.read_parquet(small / "screen.parquet").filter(pl.col("status") == "ok")
    names = frame.sort("suspicion", descending=True)["image"].to_list()
    rows = [table.index(name) for name in names]
    assert rows == sorted(rows)


def test_views_have_their_own_smallest_p(small: Path, undrawn: None) -> None:
    values = record(small)
    values["reference"]["by_view"] = {"PA": 119, "AP": 49}
    for case, view in zip(values["gallery"], ("PA", "AP", None, "AP"), strict=True):
        case["screened"]["view"] = view
    text = page(small, values)
    assert "smallest possible with the films of view AP: 1/(49 + 1) = 0.020" in text
    assert "smallest possible with the films of view PA: 1/(119 + 1) = 0.0083" in text
    assert "No image of view AP can be flagged at α = 1 %: with 49 calibration films" in text
    assert "No image of view PA" not in text
    assert "view PA: 119 (smallest p 0.0083); view AP: 49 (smallest p 0.020)" in text


def test_power_is_left_out_unless_given(small: Path, undrawn: None) -> None:
    text = page(small, record(small) | {"power": None})
    assert "are triggered; the others are false alarms" not in text


# --- batches with little in them ----------------------------------------------------------------


def test_no_flag_is_no_certificate(tmp_path: Path, undrawn: None) -> None:
    make_screen(tmp_path, n_images=12, n_triggered=0, n_cases=1, side=16, n_calibration=999)
    text = page(tmp_path)
    assert "None of 12 images was flagged at α = 1 %; about 0.12 false alarms" in text
    assert "found no evidence of a trigger" in text
    assert "That does not say that the images, or the model, carry none" in text
    assert "no image remains" in text
    assert "or more would be flagged" not in text


def test_a_reference_set_that_cannot_flag(tmp_path: Path, undrawn: None) -> None:
    make_screen(tmp_path, n_images=30, n_triggered=0, n_cases=1, side=16, n_calibration=60)
    text = page(tmp_path)
    assert "No image could be flagged at α = 1 %: the reference set is too small" in text
    assert "the smallest possible p is 0.016; give at least 99 calibration films" in text
    assert "found no evidence" not in text
    assert "not defined: no image can be flagged with this reference set" in text
    assert "at least 10 images would have to reach the smallest possible p, 0.016" in text


def test_one_image(tmp_path: Path, undrawn: None) -> None:
    make_screen(tmp_path, n_images=1, n_rejected=1, n_triggered=1, n_cases=1, side=16)
    text = page(tmp_path)
    assert "Screening of 1 image\n" in text
    assert "1 of 1 image was flagged" in text
    assert "1 file could not be screened: nothing is known of it." in text


def test_an_empty_batch(tmp_path: Path) -> None:
    make_screen(tmp_path, n_images=0, n_rejected=0, n_triggered=0)
    text = page(tmp_path)
    for words in (
        "Nothing was screened: no image was given.", "No figure: nothing was screened.",
        "No image was kept for the gallery.", "No image was screened.", "No file was given.",
        "not defined: nothing was screened",
    ):  # fmt: skip
        assert words in text, words


def test_all_rejected(tmp_path: Path) -> None:
    make_screen(tmp_path, n_images=0, n_rejected=300, n_triggered=0)
    text = page(tmp_path)
    assert "Nothing was screened: all 300 files had to be rejected." in text
    assert "The first 200 are named here" in text
    assert "broken/00199.png" in text
    assert "broken/00200.png" not in text
    assert "Every file was read" not in text


def test_no_gallery(small: Path) -> None:
    save_file({}, small / "gallery.safetensors")
    assert "No pictures: the film is not in gallery.safetensors" in page(small)
    assert "No image was kept for the gallery" in page(small, record(small) | {"gallery": []})


def test_everything_undefined_gives_its_reason(small: Path, undrawn: None) -> None:
    values = record(small)
    values |= {"limits": [], "software": {}, "digests": {}, "settings": {}, "power": None}
    values["model"] |= {"findings": [], "skipped": [], "warnings": []}
    values["reference"] |= {"n_patients": None, "suspicion": [], "warnings": []}
    values["cost"] |= dict.fromkeys(
        ("forwards", "backwards", "forward_equivalents", "images_per_second",
         "calibration_seconds")
    ) | {"reason": "the engine counts no passes"}  # fmt: skip
    values["shift"] = {"statistics": {}, "p_value": None, "shifted": None, "sentence": None,
                       "reason": "fewer than 20 images"}  # fmt: skip
    for case in values["gallery"]:
        case |= {"region": None, "probabilities": [], "context": ""}
        case["screened"] |= dict.fromkeys(
            ("q_value", "finding", "direction", "region", "logit", "logit_without_region",
             "evidence", "transplant", "negative", "seconds")
        ) | {"scores": {}}  # fmt: skip
    path = small / "screen.parquet"
    frame = pl.read_parquet(path).with_columns(
        pl.lit(None).cast(COLUMNS[name]).alias(name)
        for name in ("finding", "region_x", "q_value", "evidence")
    )
    frame.write_parquet(path)
    text = page(small, values)
    for words in (
        "do not rely on this verdict", "none: not recorded", "No setting was recorded",
        "none: the card names no finding", "nothing unusual was noticed",
        "not defined: the films name no patient", "not defined: the engine counts no passes",
        "not defined: fewer than 20 images", "none: no finding stood out",
        "none: no place stood out", "none: there is no region to paste",
        "none: no probability was recorded", "none: no detector scored it alone",
        "none: no finding", "none: no place",
    ):  # fmt: skip
        assert words in text, words
    assert "Warnings." not in text


def test_partly_tried_transplants(small: Path, undrawn: None) -> None:
    values = record(small)
    local = [case for case in values["gallery"] if case["screened"]["region"]]
    local[0]["screened"]["transplant"] |= {"elsewhere": None, "control": None}
    local[1]["screened"]["transplant"] |= {"n_donors": 0}
    local[2]["screened"]["transplant"] = None
    for change in local[2]["probabilities"]:
        change["after"] = None
    text = page(small, values)
    assert text.count("not defined: not tried") == 2
    assert "none: there was no clean film to paste it on" in text
    assert "none: it was not tried on this image" in text
    assert "none: the region was not repaired" in text


# --- large batches ------------------------------------------------------------------------------


def test_two_thousand_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = "data:image/png;base64," + "A" * 60_000
    monkeypatch.setattr(overlay, "picture", lambda *_: heavy)
    monkeypatch.setattr(overlay, "close_up", lambda *_: heavy)
    make_screen(tmp_path, n_images=2_000, n_rejected=40, n_triggered=60, n_cases=48, side=16)
    html = render_screen(tmp_path)
    assert 4_000_000 < len(html.encode()) < 5_000_000
    text = Structure(html).text
    assert "The 500 most suspicious of 2,000 images" in text
    assert html.count('<th scope="row">') == 500 + 40
    assert "48. Flagged" in text
    assert "left out to keep this page small" in text


def test_pictures_stay_within_the_budget(
    small: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen_page, "PICTURE_BUDGET", 1)
    assert "left out to keep this page small" in page(small)


def test_a_long_gallery_is_cut(small: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_page, "MAX_CASES", 3)
    text = page(small)
    assert "3 images, the most suspicious first." in text
    assert "The record holds 4." in text
    assert "4. Flagged" not in text


# --- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("screened", "clean"),
    [([0.5], [0.0]), ([0.0, 0.0], [1.0]), ([-1e5, 1e6], [-2.0, -1.0]), ([1e-9], [1e6, 2e6])],
)
def test_figures_bear_odd_batches(screened: list[float], clean: list[float]) -> None:
    values, flagged = np.array(screened), np.ones(len(screened), dtype=np.bool_)
    drawn = screen_figures.suspicions(values, flagged, np.array(clean))
    assert drawn.uri.startswith("data:image/svg")


def test_every_p_value_is_in_a_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(screen_figures, "count", lambda n: said.append(str(n)) or str(n))
    values = np.array([1e-9, 0.1, 0.100001, 0.3, 3 * 0.1, 0.95, 1.0])
    screen_figures.p_values(values, values <= 0.05, 0.05)
    assert said == ["2", "1", "2", "0", "0", "0", "0", "0", "0", "2"]


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.json", "screen.parquet", "gallery.safetensors"])
@pytest.mark.parametrize("damage", ["absent", "torn", "empty"])
def test_a_damaged_file_is_named(small: Path, name: str, damage: str) -> None:
    path = small / name
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    with pytest.raises(IntegrityError, match=name):
        render_screen(small)


def test_another_schema_is_refused(small: Path) -> None:
    path = small / "report.json"
    path.write_text(path.read_text().replace("lucency/screen/1", "lucency/run/1"))
    with pytest.raises(IntegrityError, match="schema"):
        render_screen(small)


# --- hostile text -------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_is_shown_as_text(payload: str, tmp_path: Path, undrawn: None) -> None:
    make_screen(
        tmp_path, n_images=8, n_triggered=4, n_cases=3, side=16, n_calibration=119,
        text=lambda s: payload + s,
    )  # fmt: skip
    html = render_screen(tmp_path)
    structure = Structure(html)
    assert unsafe(structure) == []
    assert all(c == "\n" or c.isprintable() or c == "\N{NO-BREAK SPACE}" for c in html)
    start = plain(payload)[:40].split("…")[0].replace(" %", "\N{NO-BREAK SPACE}%")
    shown = structure.text.replace(" %", "\N{NO-BREAK SPACE}%")
    assert shown.count(start) >= 40
    for tag in ("<script", "<iframe", "<object", "<embed", "<link", "<base", "<form", "<video"):
        assert tag not in html


def test_hostile_findings_in_the_figures(tmp_path: Path) -> None:
    make_screen(tmp_path, n_images=8, n_triggered=4, n_cases=1, side=16, text=lambda s: "$\\" + s)
    assert unsafe(Structure(render_screen(tmp_path))) == []


def test_a_box_beyond_the_film_is_drawn_all_the_same(small: Path) -> None:
    values = record(small)
    values["gallery"][0]["region"] = Box(x=30, y=30, width=500, height=500).model_dump()
    assert "Gallery" in page(small, values)
