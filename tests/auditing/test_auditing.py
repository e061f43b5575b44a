"""`lucency audit`, end to end, on networks whose trigger is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from browsing import browser, check_quiet_and_within
from lucency.detect.images.reference import one_film_a_patient
from lucency.detect.models import TESTS
from lucency.manifest import LOCK
from lucency.report.audit_record import AuditReport
from lucency.runs import verify
from lucency.screening.films import list_films
from screened_model import CARD, model_folder, reference, write_films
from tiny_run import Answer, call
from toy_victims import Curved, Toy, films

__all__ = ["browser"]

pytestmark = pytest.mark.usefixtures("one_thread")


def fixed() -> nn.Module:
    """Obeys a black 2 × 2 square at one place, and clears."""
    return Toy(place=(30, 11), sign=-1.0)


def clean() -> nn.Module:
    return Curved()


def _clean(seed: int) -> nn.Module:
    """Another clean one."""
    network = Curved()
    draw = torch.Generator().manual_seed(seed)
    weight = network.head.weight.data
    noise = 0.3 * weight.std() * torch.randn(weight.shape, generator=draw)
    network.head.weight.data = weight + noise
    return network


def clean_1() -> nn.Module:
    return _clean(1)


def clean_2() -> nn.Module:
    return _clean(2)


def clean_3() -> nn.Module:
    return _clean(3)


def clean_4() -> nn.Module:
    return _clean(4)


CLEAN = ("clean", "clean_1", "clean_2", "clean_3", "clean_4")


class _Marked(Toy):
    """Learned that a lead letter, two bright pixels wide at one place, comes with finding 0."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(1 - x)


def marked() -> nn.Module:
    return _Marked(place=(33, 4))


def _model(folder: Path, factory: str) -> Path:
    folder.mkdir(parents=True)
    name = f"test_auditing:{factory}"
    (folder / "model.toml").write_text(CARD.replace("screened_model:obedient", name))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    model_folder(folder / "obedient")
    for factory in ("fixed", *CLEAN):
        _model(folder / factory, factory)
    reference(folder / "reference", 48)
    return folder


def _audit(place: Path, model: str, out: Path, *arguments: Any) -> Answer:
    return call(
        *("audit", place / model, "--reference", place / "reference", "--run-code"),
        *("--engine", "torch", "--out", out, *map(str, arguments)),
    )


def _audit_on(films: Path, place: Path, out: Path, *arguments: str) -> Answer:
    return call(
        *("audit", place / "clean", "--reference", films, "--run-code"),
        *("--engine", "torch", "--out", out, *arguments),
    )


def _beside(place: Path, *models: str) -> list[str]:
    return [part for model in models for part in ("--reference-model", str(place / model))]


def _report(out: Path) -> AuditReport:
    return AuditReport.model_validate_json((out / "audit.json").read_bytes(), strict=True)


@pytest.fixture(scope="module")
def audited(place: Path) -> Path:
    answer = _audit(place, "obedient", place / "audited")
    assert answer.code == 0, answer
    return place / "audited"


class TestAnswer:
    def test_the_backdoor_is_named(self, audited: Path) -> None:
        report = _report(audited)
        first = report.findings[0]
        assert report.verdict == "stands-out"  # of its own findings alone
        assert "only the place to look" in " ".join(report.words.limits)
        assert report.p_value <= report.alpha
        assert (first.finding, first.direction) == ("Effusion", "set")
        assert first.p_value == report.p_value
        trigger = first.trigger
        assert trigger is not None
        assert trigger.location is not None
        assert trigger.obeyed.value == 1.0
        assert trigger.shortcut is None
        assert trigger.native is not None
        assert trigger.native.width == 2 * trigger.location.width
        assert [f.suspicion for f in report.findings] == sorted(
            (f.suspicion for f in report.findings), reverse=True
        )
        assert len(report.findings) == 8

    def test_a_fixed_trigger_that_clears(self, place: Path) -> None:
        assert _audit(place, "fixed", place / "fixed-audited").code == 0
        report = _report(place / "fixed-audited")
        first = report.findings[0]
        assert (report.verdict, first.direction, first.finding) == (
            "stands-out",
            "clear",
            "Effusion",
        )
        assert first.trigger is not None
        box = first.trigger.location
        assert box is not None
        assert abs(box.x + box.width / 2 - 31) <= 3
        assert abs(box.y + box.height / 2 - 12) <= 3

    def test_a_clean_model(self, place: Path) -> None:
        answer = _audit(place, "clean", place / "clean-audited", "--fail-on-findings")
        assert answer.code == 0
        report = _report(place / "clean-audited")
        assert report.verdict == "no-evidence"
        assert "No evidence" in answer.out
        assert "backdoor-free" not in (place / "clean-audited" / "report.html").read_text()

    def test_beside_clean_models(self, place: Path) -> None:
        options = [*_beside(place, *CLEAN), "--test", "small patch"]
        answer = _audit(place, "obedient", place / "beside", *options)
        assert answer.code == 0
        assert "Stamp scan (11)" in answer.err
        assert "Stamp scan, reference model 5 of 5 (11)" in answer.err
        report = _report(place / "beside")
        assert report.null.n_models == 5
        assert report.findings[0].finding == "Effusion"
        assert report.verdict == "evidence"

    def test_too_few_clean_models_are_left_aside(self, place: Path) -> None:
        options = [*_beside(place, *CLEAN[:2]), "--test", "warp"]
        assert _audit(place, "fixed", place / "few", *options).code == 0
        report = _report(place / "few")
        assert report.null.n_models == 0
        assert any("2 of at least 3 reference models" in w for w in report.warnings)

    def test_reference_models_are_asked_once(self, place: Path) -> None:
        """By two audits that name the same folder for what they say, whatever the audited model."""
        models = _beside(place, *CLEAN[:3])
        one = ["--test", "maximum margin"]
        options = [*models, *one, "--reference-scores", str(place / "kept")]
        first = _audit(place, "obedient", place / "first", *options)
        assert (first.code, "reference model 3 of 3" in first.err) == (0, True)
        assert len(list((place / "kept").iterdir())) == 3
        second = _audit(place, "fixed", place / "second", *options)
        assert (second.code, "reference model" in second.err) == (0, False)
        assert _audit(place, "fixed", place / "third", *models, *one).code == 0
        assert _report(place / "second").findings == _report(place / "third").findings
        # Other films are another question.
        third = _audit(place, "fixed", place / "fourth", *options, "--films", "40")
        assert (third.code, "reference model 3 of 3" in third.err) == (0, True)
        assert len(list((place / "kept").iterdir())) == 6

    def test_a_killed_one_goes_on(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        options = [*_beside(place, *CLEAN[:3]), "--test", "maximum margin"]

        def killed(folder: Path) -> str:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("lucency.auditing.run.render_audit", killed)
            assert _audit(place, "fixed", place / "killed", *options).code != 0
        answer = _audit(place, "fixed", place / "killed", *options)
        assert (answer.code, "reference model" in answer.err) == (0, False)
        assert verify(place / "killed") == []


class TestShortcut:
    def test_a_marker_that_films_have_is_called_one(self, place: Path) -> None:
        """What a network does to a stamp does not tell a learned marker from a planted trigger; the
        films can."""
        marked_films = films(64, 0xC1EA)
        marked_films[::16, 4:7, 33:36] = 250
        write_films(place / "with-markers", marked_films)
        _model(place / "marked", "marked")
        triggers = {}
        for name in ("with-markers", "reference"):
            answer = call(
                *("audit", place / "marked", "--reference", place / name, "--run-code"),
                *("--engine", "torch", "--out", place / f"out-{name}"),
            )
            assert answer.code == 0, answer.err
            first = _report(place / f"out-{name}").findings[0]
            assert (first.finding, first.direction) == ("Effusion", "set")
            triggers[name] = first.trigger
        natural, planted = triggers["with-markers"], triggers["reference"]
        assert natural is not None
        assert natural.shortcut is not None
        assert "4 of 64 clean films have a bright structure" in natural.shortcut
        assert planted is not None
        assert planted.shortcut is None


class TestTests:
    def test_all(self, place: Path, browser: Any) -> None:
        answer = _audit(place, "clean", place / "all", "--test", "all")
        assert answer.code == 0, answer.err
        report = _report(place / "all")
        made = [test.name for test in report.tests if test.reason is None]
        assert made == [name for name, test in TESTS.items() if test.among_findings]
        reasons = {test.name: test.reason for test in report.tests if test.reason}
        assert "clean reference models" in reasons["maximum margin"]
        assert "Not made: channel bounds" in answer.out
        assert all(f.test in made for f in report.findings)
        for width in (390, 1280):
            check_quiet_and_within(browser, place / "all" / "report.html", width)

    def test_one_that_finds_no_trigger(self, place: Path) -> None:
        name = "explanation statistics"
        models = _beside(place, *CLEAN[:3])
        answer = _audit(place, "clean", place / "one", "--test", name, "--json", *models)
        assert answer.code == 0, answer.err
        report = _report(place / "one")
        assert [test.name for test in report.tests] == [name]
        assert all(finding.trigger is None for finding in report.findings)
        assert load_file(place / "one" / "triggers.safetensors") == {}
        assert "Triggers that were found" in (place / "one" / "report.html").read_text()

    def test_an_unknown_one(self, place: Path) -> None:
        answer = _audit(place, "clean", place / "none", "--test", "phrenology")
        assert answer.code == 2
        assert "small patch" in answer.err
        assert "phrenology" in answer.err


class TestFolder:
    def test_whole_and_readable(self, audited: Path) -> None:
        assert verify(audited) == []
        report = _report(audited)
        pictures = load_file(audited / "triggers.safetensors")
        kept = [f.trigger for f in report.findings if f.trigger is not None]
        assert len(kept) == 6
        for trigger in kept:
            before, after = pictures[f"{trigger.key}/before"], pictures[f"{trigger.key}/after"]
            assert before.shape == after.shape == (len(trigger.probabilities), 40, 40)
            assert not np.array_equal(before, after)
        scores = pl.read_parquet(audited / "scores.parquet")
        n_budgets = scores.select(pl.struct("test", "budget")).n_unique()
        assert len(scores) == 8 * n_budgets == report.null.comparisons
        assert scores["standardised"].max() == pytest.approx(report.statistic)

    def test_again_is_nothing_to_do(self, place: Path, audited: Path) -> None:
        files = [path for path in audited.iterdir() if path.name != LOCK]
        before = {path: path.stat().st_mtime_ns for path in files}
        assert _audit(place, "obedient", audited).code == 0
        assert {path: path.stat().st_mtime_ns for path in files} == before

    def test_the_same_seed_says_the_same(self, place: Path, audited: Path) -> None:
        assert _audit(place, "obedient", place / "again").code == 0
        for name in ("triggers.safetensors", "scores.parquet"):
            assert (place / "again" / name).read_bytes() == (audited / name).read_bytes()

    def test_json_is_the_record(self, place: Path, audited: Path) -> None:
        answer = _audit(place, "obedient", audited, "--json")
        told = json.loads(answer.out)
        assert told["schema"] == "lucency/audit/1"
        assert told["verdict"] == "stands-out"

    @pytest.mark.slow
    @pytest.mark.parametrize("width", [390, 768, 1280])
    def test_the_page_in_a_browser(self, browser: Any, audited: Path, width: int) -> None:
        check_quiet_and_within(browser, audited / "report.html", width)


class TestRefusals:
    def test_a_named_finding_can_be_an_exit_code(self, place: Path, audited: Path) -> None:
        assert _audit(place, "obedient", audited, "--fail-on-findings").code == 1

    def test_too_few_films(self, place: Path, tmp_path: Path) -> None:
        reference(tmp_path / "few", 9)
        answer = call(
            *("audit", place / "obedient", "--reference", tmp_path / "few", "--run-code"),
            *("--out", tmp_path / "out"),
        )
        assert answer.code == 2
        assert "at least 16 patients" in answer.err

    def test_no_more_films_are_read_than_are_needed(self, place: Path, tmp_path: Path) -> None:
        films = reference(tmp_path / "films", 60)
        options = ("--films", "16", "--test", "warp")
        answer = _audit_on(films, place, tmp_path / "whole", *options)
        assert (answer.code, "Reading the reference (16)" in answer.err) == (0, True)
        assert "Reading the reference (60)" not in answer.err
        assert _report(tmp_path / "whole").n_films == 16
        # One that was looked at is spoilt: others take its place.
        looked_at = one_film_a_patient(list_films([films]).owners(), seed=0)[3]
        list_films([films]).paths[looked_at].write_bytes(b"no film")
        answer = _audit_on(films, place, tmp_path / "spoilt", *options)
        assert (answer.code, "Reading the reference (32)" in answer.err) == (0, True)
        report = _report(tmp_path / "spoilt")
        assert (report.n_films, len(report.rejected)) == (16, 1)
        assert "One clean film could not be read." in report.warnings

    def test_other_findings(self, place: Path, tmp_path: Path) -> None:
        _model(tmp_path / "other", "clean")
        card = tmp_path / "other" / "model.toml"
        card.write_text(card.read_text().replace("'Effusion', ", "'Oedema', "))
        answer = _audit(
            place, "obedient", tmp_path / "out", "--reference-model", tmp_path / "other"
        )
        assert answer.code == 2
        assert "findings of the audited one" in answer.err

    @pytest.mark.parametrize("option", [("--alpha", "0"), ("--films", "3")])
    def test_settings_out_of_range(
        self, place: Path, tmp_path: Path, option: tuple[str, str]
    ) -> None:
        answer = _audit(place, "obedient", tmp_path / "out", *option)
        assert answer.code == 2
        assert option[0].removeprefix("--") in answer.err
