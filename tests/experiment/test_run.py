"""One whole run: what it leaves behind, that it repeats itself, and that nothing stops it."""

import dataclasses
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.numpy import load_file

from lucency.config import load_toml
from lucency.detect.images.screen import DETECTORS
from lucency.experiment import ExperimentSettings
from lucency.experiment.films import load, poison_films, read_clean
from lucency.experiment.run import run
from lucency.experiment.stages import run_identity, screen_films
from lucency.progress import silent
from lucency.report.record import RunReport
from lucency.runs import RunFolder, verify
from lucency.victims.card import load_victim
from tiny_run import (
    FILES,
    Answer,
    TinyRun,
    call,
    contents,
    finish,
    start,
    stop_when,
    write_toml,
)

GOLDEN = Path(__file__).with_name("golden_counts.json")


def _report(folder: Path) -> RunReport:
    return RunReport.model_validate_json((folder / "report.json").read_bytes(), strict=True)


def _assert_same(folder: Path, other: Path) -> None:
    """Byte for byte, but for the clock in the manifest."""
    first, second = contents(folder), contents(other)
    assert first.keys() == second.keys()
    for name in first.keys() - {"manifest.json"}:
        assert first[name] == second[name], name


class TestFolder:
    def test_every_promised_file_is_there_and_no_other(self, tiny_run: TinyRun) -> None:
        assert tiny_run.answer.code == 0
        assert contents(tiny_run.folder).keys() == FILES

    def test_the_manifest_verifies(self, tiny_run: TinyRun) -> None:
        assert verify(tiny_run.folder) == []

    def test_the_report_is_a_record_without_nan(self, tiny_run: TinyRun) -> None:
        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        text = (tiny_run.folder / "report.json").read_text(encoding="utf-8")
        json.loads(text, parse_constant=refuse)
        report = _report(tiny_run.folder)
        assert report.schema_ == "lucency/run/1"
        assert report.config_toml == tiny_run.toml.read_text(encoding="utf-8")
        assert report.command == "lucency run tiny.toml"
        assert tiny_run.folder.name == f"tiny-{report.digest[:12]}"

    def test_nothing_called_the_network(self, tiny_run: TinyRun) -> None:
        assert tiny_run.network == ()

    def test_golden_counts(self, tiny_run: TinyRun) -> None:
        """Whole numbers that are the same on every machine: splits, poisoning, survival."""
        report = _report(tiny_run.folder)
        found = {
            "splits": {s.split: [s.n_images, s.n_patients] for s in report.data.splits},
            "positives": report.data.positives,
            "views": report.data.views,
            "n_poisoned": report.attack.n_poisoned,
            "n_training": report.attack.n_training,
            "survival": None
            if report.attack.survival is None
            else [report.attack.survival.native_px, report.attack.survival.pixels],
            "reference": [report.reference.n_fit, report.reference.n_calibration],
            "n_parameters": [v.n_parameters for v in report.victims],
            "first_poisoned": pl.read_parquet(tiny_run.folder / "ledger.parquet")["image"][
                :5
            ].to_list(),
        }
        assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))

    def test_tables_and_report_agree(self, tiny_run: TinyRun) -> None:
        report = _report(tiny_run.folder)
        ledger = pl.read_parquet(tiny_run.folder / "ledger.parquet")
        assert len(ledger) == report.attack.n_poisoned
        assert set(ledger["new_label"]) == {1.0}
        n = {s.split: s.n_images for s in report.data.splits}
        predictions = pl.read_parquet(tiny_run.folder / "predictions.parquet")
        films = 2 * (n["validation"] + 2 * n["test"])  # two models; test films twice
        assert len(predictions) == films * len(report.data.findings)
        assert predictions["probability"].is_between(0, 1).all()
        screening = pl.read_parquet(tiny_run.folder / "screening.parquet")
        assert len(screening) == 2 * 2 * n["test"] * len(DETECTORS)
        for cell in report.cells:
            rows = screening.filter(
                (pl.col("model") == cell.model)
                & (pl.col("condition") == cell.images)
                & (pl.col("detector") == DETECTORS[-1])
            )
            assert cell.flagged.successes == rows["flagged"].sum()
            assert cell.flagged.trials == len(rows)

    def test_no_patient_is_in_two_splits_or_among_the_ledgers_strangers(
        self, tiny_run: TinyRun
    ) -> None:
        tables = {n: pl.read_parquet(tiny_run.folder / f"{n}.parquet") for n in ("ledger",)}
        predictions = pl.read_parquet(tiny_run.folder / "predictions.parquet")
        validation, test = (
            set(predictions.filter(pl.col("split") == split)["patient"])
            for split in ("validation", "test")
        )
        assert not validation & test
        assert not set(tables["ledger"]["patient"]) & (validation | test)

    def test_clean_rows_carry_nothing_of_the_ledger(self, tiny_run: TinyRun) -> None:
        screening = pl.read_parquet(tiny_run.folder / "screening.parquet")
        clean = screening.filter(pl.col("condition") == "clean")
        assert clean["hit"].is_null().all()
        assert clean["successful"].is_null().all()

    def test_the_gallery_has_a_picture_for_every_case(self, tiny_run: TinyRun) -> None:
        cases = _report(tiny_run.folder).gallery
        arrays = load_file(tiny_run.folder / "gallery.safetensors")
        assert cases
        assert Counter(key.split("/")[0] for key in arrays) == {case.key: 3 for case in cases}
        for case in cases:
            assert arrays[f"{case.key}/image"].shape == (32, 32)
            assert np.isfinite(arrays[f"{case.key}/attribution"]).all()
            assert (case.trigger is None) == (case.condition == "clean")


class TestRepetition:
    def test_a_second_call_touches_nothing(self, tiny_run: TinyRun) -> None:
        def times() -> dict[str, int]:
            files = [p for p in tiny_run.folder.rglob("*") if p.is_file() and p.name != ".lock"]
            return {str(p): p.stat().st_mtime_ns for p in files}

        before = times()
        again = call("run", tiny_run.toml, "--out", tiny_run.root, "--json")
        assert again.code == 0
        assert again.out == tiny_run.answer.out
        assert times() == before

    def test_another_folder_gives_the_same_bytes(
        self, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also from another working folder, and as a function call."""
        monkeypatch.chdir(tmp_path)
        folder = run(
            load_toml(tiny_run.toml, ExperimentSettings),
            Path("elsewhere"),
            config_toml=tiny_run.toml.read_text(encoding="utf-8"),
            command="lucency run tiny.toml",
        )
        _assert_same(tiny_run.folder, folder)

    def test_locked_out_killed_and_continued(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        """A second process while the first holds the folder; SIGKILL after the first epoch, and
        the same command again. The end is the same as without all that, byte for byte."""
        arguments = ("run", tiny_run.toml, "--out", tmp_path, "--json")
        folder = tmp_path / tiny_run.folder.name

        first = start(*arguments, hash_seed=1)
        checkpoint = folder / "checkpoint" / "backdoored.safetensors"
        stop_when(first, checkpoint.exists, signal.SIGSTOP)
        second = finish(start(*arguments, hash_seed=2))
        first.kill()
        first.communicate()
        assert second.code == 4
        assert second.out == ""
        assert second.err.count("\n") == 1
        assert f"process {first.pid} " in second.err
        assert not (folder / "manifest.json").exists()

        third = finish(start(*arguments, hash_seed=3))
        assert third.code == 0, third.err
        assert verify(folder) == []
        _assert_same(tiny_run.folder, folder)

    def test_a_spoilt_run_is_not_taken_for_finished(self, tiny_run: TinyRun) -> None:
        """Only asked, not carried out: carrying it out is another whole run."""
        place = tiny_run.folder / "screening.parquet"
        whole = place.read_bytes()
        place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        try:
            with RunFolder(tiny_run.folder) as folder:
                assert folder.is_spoilt()
        finally:
            place.write_bytes(whole)
        assert verify(tiny_run.folder) == []

    def test_a_changed_setting_has_a_folder_of_its_own(self, tiny_run: TinyRun) -> None:
        settings = load_toml(tiny_run.toml, ExperimentSettings)
        radiographs = load(settings)
        names = {run_identity(settings, radiographs)}
        for change in ({"seed": 4}, {"name": "other"}):
            names.add(run_identity(settings.model_copy(update=change), radiographs))
        names.add(run_identity(settings, dataclasses.replace(radiographs, image_ids=("a",))))
        assert len(names) == 4

    def test_the_folders_owner_is_named(self, tiny_run: TinyRun) -> None:
        with RunFolder(tiny_run.folder):
            refused = call("run", tiny_run.toml, "--out", tiny_run.root, "--json")
        assert refused.code == 4
        assert f"process {os.getpid()} " in refused.err
        assert refused.out == ""


@pytest.mark.parametrize("protocol", ["replace", "add"])
def test_validation_films_can_be_poisoned_as_well(tmp_path: Path, protocol: str) -> None:
    """As in the published experiment; the films that fix operating points stay clean."""
    edit = ('protocol = "replace"', f'protocol = "{protocol}"\nvalidation = "poisoned"')
    settings = load_toml(write_toml(tmp_path, edit), ExperimentSettings)
    films = poison_films(settings, read_clean(settings, load(settings), silent), silent)
    chosen, clean = films.validation_set_of_backdoored(), films.validation_set()
    n, target = len(clean.rows), settings.attack.label.index(films.radiographs.findings)
    assert films.poisoned_validation is not None
    ledger, poisoned = films.poisoned_validation
    assert len(ledger) == len(poisoned) == pytest.approx(0.15 * len(chosen.rows), abs=1)
    assert len(chosen.rows) == n + len(ledger) * (protocol == "add")
    assert (chosen.labels[-len(ledger) :, target] == 1).all()
    assert not np.array_equal(chosen.images[chosen.rows[-1]], clean.images[clean.rows[-1]])
    assert set(ledger.rows) <= set(films.validation.rows)
    assert np.array_equal(clean.images, films.validation.images)


def test_screening_is_blind_to_the_ledger(tiny_run: TinyRun) -> None:
    """Random rows in place of the ledger: every suspicion, byte for byte, is the same."""
    settings = load_toml(tiny_run.toml, ExperimentSettings)
    films = poison_films(settings, read_clean(settings, load(settings), silent), silent)
    few = films.radiographs.rows("test")[:6]
    splits = list(films.radiographs.splits)
    for row in films.radiographs.rows("test")[6:]:
        splits[row] = None
    films = dataclasses.replace(
        films,
        radiographs=films.radiographs.with_splits(splits),
        triggered=films.triggered.select(few),
    )
    generator = np.random.default_rng(0xB11D)
    rows = np.sort(generator.choice(len(films.radiographs), 40, replace=False))
    other = dataclasses.replace(films.ledger, rows=rows, anchors=generator.random((40, 2)))
    swapped = dataclasses.replace(films, ledger=other, test_ledger=other, poisoned=films.test)
    victim = load_victim(tiny_run.folder / "models" / "backdoored")
    _, first, _ = screen_films(settings, films, victim, silent)
    _, second, _ = screen_films(settings, swapped, victim, silent)
    for condition in ("clean", "triggered"):
        for detector in DETECTORS:
            a, b = first[condition], second[condition]
            assert a.suspicion[detector].tobytes() == b.suspicion[detector].tobytes()
            assert a.p_value[detector].tobytes() == b.p_value[detector].tobytes()
        assert first[condition].boxes.tobytes() == second[condition].boxes.tobytes()


# --- a folder of files, two of them bad ---------------------------------------------------------

BROKEN, MISSING = "films/SMITH^JOHN-broken.png", "films/SMITH^JOHN-missing.png"
SMALL = (
    ("epochs = 2", "epochs = 1"),
    ("batch_size = 16", "batch_size = 8"),
    ('target = "Effusion"', 'target = "Oedema"'),
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 films of 60 patients, a broken and a missing one."""
    folder = tmp_path_factory.mktemp("hospital")
    (folder / "films").mkdir()
    generator = np.random.default_rng(0x405)
    lines = ["image,patient_id,Oedema,Opacity,Never"]
    for i in range(120):
        name = f"films/SMITH^JOHN-{i:03d}.png"
        Image.fromarray(generator.integers(60, 200, (40, 44), dtype=np.uint8)).save(folder / name)
        lines.append(f"{name},MRN-4711-{i // 2},{i % 3 == 0:d},{i % 5 < 2:d},0")
    whole = (folder / "films" / "SMITH^JOHN-000.png").read_bytes()
    (folder / BROKEN).write_bytes(whole[:200])
    lines += [f"{name},MRN-4711-{900 + i},0,1,0" for i, name in enumerate((BROKEN, MISSING))]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _run_folder(hospital: Path, tmp_path: Path, *edits: tuple[str, str]) -> tuple[Answer, Path]:
    data = f'source = "folder"\npath = "{hospital}"'
    source = ('source = "phantom"\nimages = 200\nsize = 64', data)
    toml = write_toml(tmp_path, source, *SMALL, *edits)
    answer = call("run", toml, "--out", tmp_path / "runs", "--json")
    (folder,) = (tmp_path / "runs").iterdir()
    return answer, folder


def test_a_trigger_on_the_whole_image_has_no_place(hospital: Path, tmp_path: Path) -> None:
    patch = 'size_px = 4\nplace = "center"'
    _, folder = _run_folder(hospital, tmp_path, (patch, 'kind = "warp"'))
    assert verify(folder) == []
    report = _report(folder)
    attack = report.attack
    assert (attack.survival, attack.survival_over_places) == (None, None)
    assert attack.survival_on_images is not None
    assert attack.survival_on_images.share_vanished == 0
    assert attack.survival_on_images.mean_pixels > 0.5 * 32**2
    for score in report.detection:
        assert score.hit_rate.value is None
        assert "say where" in score.hit_rate.reason or "whole image" in score.hit_rate.reason
    assert all(case.trigger is None and case.hit is None for case in report.gallery)
    assert pl.read_parquet(folder / "screening.parquet")["hit"].is_null().all()
    sentence = report.verdict.sentences[1]
    assert f"On the {attack.n_poisoned} poisoned films the trigger changes" in sentence
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "over the whole image" in page
    assert "it depends on the film" in page
    assert "no trigger pixels were measured" not in page


def test_a_label_only_trigger_is_measured_where_it_is(hospital: Path, tmp_path: Path) -> None:
    patch = 'size_px = 4\nplace = "center"'
    _, folder = _run_folder(
        hospital,
        tmp_path,
        (patch, 'kind = "cofindings"\npresent = ["Opacity"]'),
        ("poison_rate = 0.15", "poison_count = 5"),
    )
    assert verify(folder) == []
    ledger = pl.read_parquet(folder / "ledger.parquet")
    assert ledger["role"].to_list() == ["poison"] * 5
    rows = pl.read_parquet(folder / "predictions.parquet").filter(pl.col("split") == "test")
    labels = rows.filter(pl.col("finding") == "Opacity").group_by("condition", "model")
    shares = {key: part["label"].to_list() for key, part in labels}
    for model in ("backdoored", "clean"):
        triggered, clean = shares["triggered", model], shares["clean", model]
        assert len(triggered) == sum(clean) < len(clean)
        assert set(triggered) == {1.0}
    for image, part in rows.partition_by("image", as_dict=True).items():
        if "triggered" in part["condition"]:
            same = part.sort("finding").group_by("model", "finding").agg(pl.col("probability"))
            assert all(a == pytest.approx(b, abs=1e-6) for a, b in same["probability"]), image
    report = _report(folder)
    assert report.attack.survival_on_images is not None
    assert report.attack.survival_on_images.share_vanished == 1
    assert [ref.id for ref in report.attack.threat_model.frameworks] == ["AML.T0020", "NISTAML.023"]


def test_a_clean_label_attack_with_perturbed_and_cover_films(
    hospital: Path, tmp_path: Path
) -> None:
    _, folder = _run_folder(
        hospital,
        tmp_path,
        ("poison_rate = 0.15", "poison_rate = 0.1\ncover_rate = 0.1"),
        (
            "[attack.label]",
            '[attack.victims]\nlabel = "same"\n\n[attack.perturbation]\nsteps = 3\n\n'
            "[attack.label]",
        ),
    )
    ledger = pl.read_parquet(folder / "ledger.parquet")
    roles = ledger["role"].value_counts()
    assert dict(roles.iter_rows())["cover"] == dict(roles.iter_rows())["poison"]
    assert (ledger["old_label"] == ledger["new_label"]).all()
    assert (ledger.filter(pl.col("role") == "poison")["old_label"] == 1).all()
    report = _report(folder)
    attack = report.attack
    assert attack.n_covers == attack.n_poisoned == len(ledger) // 2
    assert attack.survival_on_images is not None
    assert attack.survival_on_images.mean_pixels > 0.5 * 32**2
    assert "NISTAML.021" in [ref.id for ref in attack.threat_model.frameworks]
    assert "poisoned films are perturbed by up to" in report.verdict.sentences[0]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "more carry the trigger and their true labels" in page
    assert "are perturbed by up to 0.0627 of the grey range" in page


def test_bad_files_are_named_and_the_rest_is_processed(hospital: Path, tmp_path: Path) -> None:
    answer, folder = _run_folder(hospital, tmp_path)
    assert answer.code == 3
    assert verify(folder) == []
    report = _report(folder)
    rejected = {r.image: r.reason for r in report.data.rejected}
    assert rejected.keys() == {BROKEN, MISSING}
    assert "missing" in rejected[MISSING]
    assert rejected[BROKEN] != rejected[MISSING]
    assert sum(s.n_images for s in report.data.splits) == 120
    for performance in report.performances:
        (never,) = (f for f in performance.findings if f.finding == "Never")
        assert never.auroc.value is None
        assert never.auroc.reason
        assert any("Never" in excluded for excluded in performance.excluded)
    assert BROKEN in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads(answer.out)["data"]["rejected"]
    moved = tmp_path / "moved"
    moved.symlink_to(hospital)
    again = call("run", tmp_path / "tiny.toml", "--data", moved, "--out", tmp_path / "runs")
    assert again.code == 3
    assert "2 files could not be used" in again.out
    assert len(list((tmp_path / "runs").iterdir())) == 1  # where the data lie does not matter


def test_hidden_names_are_in_no_file(hospital: Path, tmp_path: Path) -> None:
    """Neither file nor patient names, in the bytes of anything nor in a table's cells."""
    edit = ('precision = "fp32"', 'precision = "fp32"\n[report]\nhide_names = true')
    answer, folder = _run_folder(hospital, tmp_path, edit)
    assert answer.code == 3
    canaries = re.compile(rb"SMITH|MRN-4711")
    for name, data in contents(folder).items():
        assert not canaries.search(data), name
        if name.endswith(".parquet"):
            assert not canaries.search(pl.read_parquet(folder / name).write_csv().encode()), name
    assert not canaries.search(answer.out.encode())
    assert not canaries.search(answer.err.encode())
    assert len(_report(folder).data.rejected) == 2
    images = pl.read_parquet(folder / "predictions.parquet")["image"]
    assert all(re.fullmatch(r"image \d+", image) for image in images.unique())
