"""The page: well-formed, complete, the same bytes every time, and honest about what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from make_run import make_run, write_report
from payloads import PAYLOADS, Structure, unsafe
from safetensors.numpy import save_file

from lucency.errors import IntegrityError
from lucency.records import Estimate, Rate
from lucency.report import overlay, page
from lucency.report.page import render_run
from lucency.report.record import RunReport
from lucency.report.text import plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return render_run(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    make_run(tmp_path, n_findings=2, n_images=80, n_cases=3, side=48)
    return tmp_path


def load(folder: Path) -> RunReport:
    return RunReport.model_validate_json((folder / "report.json").read_bytes())


def test_well_formed_and_closed(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    assert unsafe(Structure(html)) == []
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert len(html) < 6_000_000


def test_the_sheet_loads_nothing(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_order(html: str) -> None:
    text = Structure(html).text
    steps = [
        "phantom-demo", "This run poisoned research data on purpose", "Limits, to be read first",
        "The pipeline can be backdoored", "Clean macro AUROC", "Attack and trigger survival",
        "Data and splits", "Performance", "ROC curves", "Attack success", "Training", "Detection",
        "Gallery", "How to run it again", "Terms", "References",
    ]  # fmt: skip
    at = -1
    for step in steps:
        at = text.index(step, at + 1)


def test_what_was_measured_is_said(html: str) -> None:
    text = Structure(html).text.replace("\N{NO-BREAK SPACE}", " ")
    for fact in (
        "383 of 409", "(22/409)", "floor 0.764", "00012174_001.png", "truncated at 11,204 B",
        "p = 0.0033; smallest possible 0.0033", "5 × 5 px", "Labels were mined from reports",
        "not defined: no film of the test set is positive", "299 clean reference films",
        'target = "Atelectasis"', "lucency run run.toml", "0.1.0", "20250611", "backdoored",
        "9 → 1 px", "−0.014 [−0.031, +0.002]",
    ):  # fmt: skip
        assert fact in text, fact
    assert "backdoor-free" not in text
    assert "None" not in text
    assert "nan" not in text.lower().replace("finance", "")


def test_no_patient_is_named(html: str) -> None:
    assert "patient 0" not in html
    assert "patient 10" not in html


def test_same_record_same_bytes(folder: Path, html: str) -> None:
    assert render_run(folder) == html


def test_every_picture_says_what_it_is(html: str) -> None:
    assert all(Structure(html).values("alt"))


# --- what is undefined --------------------------------------------------------------------------


def hollow(value: Any, reason: str = "reason") -> Any:
    """Empty every measured number of a dumped record, each with a reason of its own."""
    if isinstance(value, dict):
        if set(value) == set(Estimate.model_fields):
            return Estimate(value=None, reason=f"{reason} E").model_dump()
        if set(value) == set(Rate.model_fields):
            return Rate(successes=0, trials=0, value=None, reason=f"{reason} R").model_dump()
        return {key: hollow(entry, f"{reason} {key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [hollow(entry, f"{reason} {at}") for at, entry in enumerate(value)]
    return value


def reasons(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["reason"]] if value.get("reason") and "value" in value else []
        return own + [found for entry in value.values() for found in reasons(entry)]
    if isinstance(value, list | tuple):
        return [found for entry in value for found in reasons(entry)]
    return []


def test_every_none_gives_its_reason(small: Path) -> None:
    record = hollow(load(small).model_dump(by_alias=True))
    for entry in record["attack"]:
        if entry.startswith(("survival", "share_of")):
            record["attack"][entry] = None
    for row in record["attack_success"]:
        row |= {"threshold": None, "clean_threshold": None, "excess": None}
    for number, point in enumerate(record["operating_points"]):
        point |= {"threshold": None, "sensitivity": None, "specificity": None,
                  "reason": f"point {number}."}  # fmt: skip
    for victim in record["victims"]:
        for epoch in victim["epochs"]:
            epoch["validation_auroc"] = None
    for case in record["gallery"]:
        case |= {"region": None, "region_native": None, "trigger": None, "hit": None,
                 "probability_after": None}  # fmt: skip
    write_report(small, RunReport.model_validate(record))
    structure = Structure(render_run(small))
    assert unsafe(structure) == []
    shown = [
        reason
        for key in ("attack_success", "detection", "cells")
        for reason in reasons(record[key])
    ]
    shown += [
        reason
        for entry in record["performances"]
        for reason in reasons({k: v for k, v in entry.items() if k.startswith("macro")})
    ]
    shown += [r for e in record["performances"] if e["set_name"] == "NN"
              for r in reasons(e["findings"])]  # fmt: skip
    for reason in shown:
        assert f"not defined: {reason}" in structure.text
    assert structure.text.count(f"not defined: {record['macro_difference']['reason']}") == 2
    assert "not defined: point 0." in structure.text
    assert "no positive film" in structure.text or "reason" in structure.text
    for words in (
        "not defined: no trigger pixels were measured", "training used no augmentation",
        "not defined: no region was named", "not defined: no region was repaired",
        "the label edit clears the target", "no finding of the validation set has both classes",
        "its place was not recorded",
    ):  # fmt: skip
        assert words in structure.text, words
    assert "None" not in structure.text


def test_a_value_without_interval_says_why(small: Path) -> None:
    record = load(small).model_dump(by_alias=True)
    area = record["performances"][0]["findings"][0]["auroc"]
    area |= {"low": None, "high": None, "reason": "no interval: one patient",
             "undefined_resamples": 1234}  # fmt: skip
    write_report(small, RunReport.model_validate(record))
    text = Structure(render_run(small)).text
    assert "no interval: one patient" in text
    assert "1,234 resamples left out" in text


def test_a_trigger_at_varying_places(small: Path) -> None:
    record = load(small).model_dump(by_alias=True)
    record["attack"]["survival"] = None
    write_report(small, RunReport.model_validate(record))
    text = Structure(render_run(small)).text
    assert "mean over the places it may take" in text
    assert "not defined: the place varies" in text


def test_an_empty_run_still_reads(small: Path) -> None:
    record = load(small).model_dump(by_alias=True)
    for key in ("victims", "performances", "operating_points", "attack_success", "detection",
                "cells", "costs", "gallery"):  # fmt: skip
        record[key] = []
    record["verdict"] |= {"limits": [], "sentences": []}
    record["data"] |= {"splits": [], "views": {}, "rejected": [], "notes": []}
    record["software"] = {}
    write_report(small, RunReport.model_validate(record))
    for name in ("predictions", "screening"):
        path = small / f"{name}.parquet"
        pl.read_parquet(path).clear().write_parquet(path)
    structure = Structure(render_run(small))
    assert unsafe(structure) == []
    for words in (
        "do not rely on this verdict", "Attack success was not measured", "not recorded",
        "No image was kept", "not measured in this run", "Every file was read",
    ):  # fmt: skip
        assert words in structure.text


def test_a_case_without_pictures_says_so(small: Path) -> None:
    save_file({}, small / "gallery.safetensors")
    text = Structure(render_run(small)).text
    assert "No pictures: the film is not in gallery.safetensors" in text


def test_pictures_stay_within_the_budget(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PICTURE_BUDGET", 1)
    assert "left out to keep this page small" in Structure(render_run(small)).text


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["report.json", "predictions.parquet", "screening.parquet", "gallery.safetensors"]
)
@pytest.mark.parametrize("damage", ["absent", "torn", "empty"])
def test_a_damaged_file_is_named(small: Path, name: str, damage: str) -> None:
    path = small / name
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    with pytest.raises(IntegrityError, match=name):
        render_run(small)


def test_a_missing_column_is_named(small: Path) -> None:
    path = small / "predictions.parquet"
    pl.read_parquet(path).drop("label").write_parquet(path)
    with pytest.raises(IntegrityError, match="label"):
        render_run(small)


# --- hostile text -------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_is_shown_as_text(
    payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_drawings", lambda run: {})
    monkeypatch.setattr(page, "_panels", lambda run: [])
    blank = overlay.scale_bar()
    monkeypatch.setattr(overlay, "picture", lambda *_: blank)
    monkeypatch.setattr(overlay, "close_up", lambda *_: blank)
    make_run(tmp_path, n_findings=2, n_images=6, n_cases=3, side=24, text=lambda s: payload + s)
    html = render_run(tmp_path)
    structure = Structure(html)
    assert unsafe(structure) == []
    assert all(c == "\n" or c.isprintable() or c == "\N{NO-BREAK SPACE}" for c in html)
    start = plain(payload)[:40].split("…")[0].replace(" %", "\N{NO-BREAK SPACE}%")
    shown = structure.text.replace(" %", "\N{NO-BREAK SPACE}%")
    assert shown.count(start) >= 40
    for tag in ("<script", "<iframe", "<object", "<embed", "<link", "<base", "<form", "<video"):
        assert tag not in html
