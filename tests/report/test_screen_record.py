"""Lines of a screening: their order, what they refuse, and the flat table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from make_screen import make_screen
from pydantic import ValidationError

from lucency.records import Box
from lucency.report.screen_record import (
    ProbabilityChange,
    ScreenCase,
    ScreenedImage,
    ScreenReport,
    Transplant,
    tally,
)
from lucency.report.screen_table import COLUMNS, SCORE, table
from lucency.writing import plain

ORDER = [
    "image", "status", "reason", "suspicion", "p_value", "q_value", "flagged", "finding",
    "direction", "region", "logit", "logit_without_region", "scores", "evidence", "view",
    "transplant", "negative", "seconds",
]  # fmt: skip
KEY = Transplant(n_donors=16, same_place=4.5, elsewhere=None, control=0.1, transfers=True)


def ok(**changes: Any) -> ScreenedImage:
    values = {"image": "a.png", "status": "ok", "suspicion": 1.5, "p_value": 0.25, "flagged": False}
    return ScreenedImage.model_validate(values | changes)


def bad(name: str = "b.png", reason: str = "truncated") -> ScreenedImage:
    return ScreenedImage(image=name, status="rejected", reason=reason)


def test_a_line_keeps_the_order_of_the_contract() -> None:
    line = ok(
        region=Box(x=1, y=2, width=3, height=4), transplant=KEY, scores={"T1": 2.0}
    ).model_dump_json()
    assert list(json.loads(line)) == ORDER
    assert list(json.loads(bad().model_dump_json())) == ORDER
    assert json.loads(line)["region"] == {"x": 1, "y": 2, "width": 3, "height": 4}


@pytest.mark.parametrize("name", ["two\nlines\r.png", "\u2028.png", '"; {}.png', "\u202egnp.exe"])
def test_a_line_is_one_line_and_comes_back(name: str) -> None:
    line = ok(image=name)
    text = line.model_dump_json()
    assert "\n" not in text
    assert "\r" not in text
    assert ScreenedImage.model_validate_json(text) == line


def test_a_name_that_is_not_utf8_can_be_written() -> None:
    line = bad(b"caf\xe9.png".decode("utf-8", "surrogateescape"), "no file \udce9")
    assert line.image == "caf\\udce9.png"
    assert ScreenedImage.model_validate_json(line.model_dump_json().encode()) == line


@pytest.mark.parametrize(
    "changes",
    [
        {"suspicion": float("nan")},
        {"suspicion": None},
        {"p_value": None},
        {"p_value": 0.0},
        {"p_value": 1.01},
        {"q_value": -0.1},
        {"flagged": None},
        {"scores": {"T1": float("inf")}},
        {"direction": "up"},
        {"evidence": "some"},
        {"seconds": -1.0},
        {"status": "rejected"},
        {"status": "rejected", "reason": "torn"},
        {"status": "rejected", "reason": "", "suspicion": None, "p_value": None, "flagged": None},
        {"surprise": 1},
    ],
)
def test_a_line_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ok(**changes)


def test_the_table_has_a_column_a_field() -> None:
    lines = [
        bad(),
        ok(region=Box(x=1, y=2, width=3, height=4), transplant=KEY, q_value=0.5, finding="Mass",
           direction="clear", evidence="local", view="PA", negative="none", seconds=0.1,
           logit=2.0, logit_without_region=-1.0, scores={"T0": 1.0, "T1": 2.0}),
        ok(image="c.png", flagged=True, scores={"far": 3.0, "T1": 4.0}),
    ]  # fmt: skip
    frame = table(iter(lines))
    assert frame.columns == [*COLUMNS, f"{SCORE}T0", f"{SCORE}T1", f"{SCORE}far"]
    assert frame["image"].to_list() == ["b.png", "a.png", "c.png"]
    assert frame["flagged"].to_list() == [None, False, True]
    assert frame["score: T0"].to_list() == [None, 1.0, None]
    assert frame["score: T1"].to_list() == [None, 2.0, 4.0]
    assert frame["score: far"].to_list() == [None, None, 3.0]
    row = frame.row(1, named=True)
    assert [row[f"region_{name}"] for name in ("x", "y", "width", "height")] == [1, 2, 3, 4]
    assert row["transplant_n_donors"] == 16
    assert row["transplant_same_place"] == 4.5
    assert row["transplant_elsewhere"] is None
    assert row["transplant_control"] == 0.1
    assert row["transplant_transfers"] is True
    flat = {"image", "status", "reason", "suspicion", "p_value", "q_value", "flagged", "finding",
            "direction", "logit", "logit_without_region", "evidence", "view", "negative",
            "seconds"}  # fmt: skip
    for name in flat:
        assert row[name] == getattr(lines[1], name), name
    assert {name.split("_")[0] for name in set(COLUMNS) - flat} == {"region", "transplant"}


@pytest.mark.parametrize("lines", [[], [bad()]])
def test_a_table_without_values_keeps_its_types(lines: list[ScreenedImage]) -> None:
    frame = table(lines)
    assert len(frame) == len(lines)
    assert dict(frame.schema) == COLUMNS
    both = pl.concat([frame, table([ok()])])
    assert both["p_value"].to_list()[-1] == 0.25


def test_a_batch_is_counted() -> None:
    lines = [ok(q_value=0.04, flagged=True), ok(q_value=0.05, flagged=True), ok(q_value=0.051),
             ok(), bad()]  # fmt: skip
    counts = tally(lines, alpha=0.01, fdr=0.05)
    assert (counts.screened, counts.rejected, counts.flagged, counts.discoveries) == (4, 1, 2, 2)
    assert counts.expected_false_alarms == pytest.approx(0.04)
    assert counts.fdr == 0.05


def test_a_report_comes_back_whole(tmp_path: Path) -> None:
    report = make_screen(tmp_path, n_images=8, n_triggered=4, n_cases=2, side=16, n_calibration=9)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text)["schema"] == "lucency/screen/1"
    assert ScreenReport.model_validate_json(text) == report
    assert ScreenReport.model_validate(plain(report)) == report
    lines = (tmp_path / "screen.jsonl").read_text(encoding="utf-8").splitlines()
    assert [list(json.loads(line)) for line in lines] == [ORDER] * 10


def test_a_case_shows_six_findings_at_most() -> None:
    row = ProbabilityChange(finding="Mass", before=0.5, after=None)
    with pytest.raises(ValidationError):
        ScreenCase(key="k", screened=ok(), region=None, probabilities=(row,) * 7)


def test_the_schema_is_named() -> None:
    field = ScreenReport.model_fields["schema_"]
    assert (field.alias, field.default) == ("schema", "lucency/screen/1")
