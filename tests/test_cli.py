"""The command line: pure answers on standard output, one sentence on standard error, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lucency.config
from lucency import cli
from lucency.config import load_toml
from lucency.experiment import ExperimentSettings
from tiny_run import Answer, TinyRun, call, finish, start, write_toml

SURVIVAL = ("survival", "--native", "1024", "--size", "3", "--crop", "0.6", "--network", "224")


def _assert_refused(answer: Answer, *words: str, code: int = 2) -> None:
    """One sentence on standard error, nothing on standard output."""
    assert answer.code == code, answer
    assert answer.out == ""
    lines = answer.err.splitlines()
    sentence = lines[-1]
    for word in words:
        assert word in sentence
    for line in lines[:-1]:
        assert line.startswith("Reading films ("), line
    assert "Traceback" not in answer.err


def _assert_nothing_written(out: Path) -> None:
    """No file but the lock of a folder that was opened."""
    assert [p.name for p in out.rglob("*") if p.is_file() and p.name != ".lock"] == []


class TestSurvival:
    def test_the_paper_s_trigger_is_one_pixel(self) -> None:
        answer = call(*SURVIVAL, "--place", "center", "--resize", "nearest", "--json")
        assert answer == Answer(0, '{"native_px": 9, "pixels": 1, "max_change": 1.0}\n', err="")

    @pytest.mark.parametrize(("size", "pixels"), [(1, 0), (2, 0), (4, 4), (5, 4)])
    def test_other_sizes(self, size: int, pixels: int) -> None:
        answer = call(
            "survival", "--native", 1024, "--size", size, "--crop", 0.6, "--network", 224, "--json"
        )
        assert json.loads(answer.out)["pixels"] == pixels

    def test_in_words(self) -> None:
        answer = call(*SURVIVAL)
        assert answer.code == 0
        assert "1 network pixels differ" in answer.out
        assert "9 native pixels" in answer.out

    def test_a_random_place_has_a_distribution(self) -> None:
        answer = call(*SURVIVAL, "--place", "random", "--json")
        spread = json.loads(answer.out)
        assert spread["n_places"] == (616 - 2) ** 2
        assert sum(spread["pixels"].values()) == pytest.approx(1)
        assert set(spread["pixels"]) == {"1", "2", "4"}
        words = call(*SURVIVAL, "--place", "random").out
        assert f"{spread['n_places']} places" in words
        assert "4 at 0.8%" in words

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--resize", "lanczos"), ("resize", "'nearest'", "'lanczos'")),
            (("--place", "1022,1022"), ("place", "1024 × 1024", "[1022, 1022]")),
            (("--place=-1,4",), ("place", "[-1, 4]")),
            (("--place", "middle"), ("--place", "center", "'middle'")),
            (("--place", "1,2,3"), ("--place", "'1,2,3'")),
            (("--size", "0"), ("size_px", "[1, 1024]", "got 0")),
            (("--size", "700"), ("size_px", "616 × 616", "got 700")),
            (("--crop", "60"), ("crop", "(0, 1]", "got 60", "fraction")),
            (("--crop", "much"), ("--crop", "number")),
            (("--grey", "nan"), ("grey",)),
            (("--native", "2"), ("--native", "[3, 16384]", "got 2")),
            (("--native", "99999999"), ("--native", "16384")),
            (("--network", "4"), ("size", "[16, 2048]", "got 4")),
            (("--sise", "4"), ("--sise",)),
        ],
        ids=lambda value: " ".join(value),
    )
    @pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
    def test_bad_arguments(
        self, arguments: tuple[str, ...], words: tuple[str, ...], as_json: bool
    ) -> None:
        _assert_refused(call(*SURVIVAL, *arguments, *(["--json"] if as_json else [])), *words)


class TestRefusals:
    """Each names the place, what was expected and what came; nothing is left behind."""

    def _refused(self, tmp_path: Path, toml: Path, *words: str, code: int = 2) -> None:
        out = tmp_path / "out"
        _assert_refused(call("run", toml, "--out", out), *words, code=code)
        _assert_nothing_written(out)
        quiet = call("run", toml, "--out", out, "--json")
        _assert_refused(quiet, *words, code=code)
        assert len(quiet.err.splitlines()) == 1
        _assert_nothing_written(out)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        self._refused(tmp_path, tmp_path / "nope.toml", "nope.toml", "does not exist")

    def test_a_folder(self, tmp_path: Path) -> None:
        self._refused(tmp_path, tmp_path, "must be a TOML file, got a folder")

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            (
                "epochs = 2",
                "epocks = 2",
                ("unknown key 'epocks' in [victim]", "did you mean 'epochs'"),
            ),
            (
                "0.15\n\n[attack.tr",
                "5\n\n[attack.tr",
                ("poison_rate", "[0, 1]", "got 5", "fraction"),
            ),
            (
                "0.15\n\n[attack.tr",
                "0.001\n\n[attack.tr",
                ("poison_rate", "at least one", "got 0.001"),
            ),
            ('"Effusion"', '"Efusion"', ("target", "Effusion", "'Efusion'")),
            ("size = 32", 'size = 32\nresize = "lanczos"', ("resize", "'nearest'", "'lanczos'")),
            ("reference = 0.25", "reference = 0.02", ("reference", "at least 8 patients", "got")),
            ('"center"', "[70, 70]", ("place", "64 × 64", "[70, 70]")),
            ("size_px = 4", "size_px = 60", ("size_px", "52 × 52", "got 60")),
            ("batch_size = 16", "batch_size = 3000", ("batch_size", "got 3000")),
            ('"densenet-small"', '"densenet9"', ("architecture", "densenet121", "'densenet9'")),
            (
                'precision = "fp32"',
                'precision = "fp32"\n[explain]\nlayer = "features.norm6"',
                ("layer", "features.norm5", "'features.norm6'"),
            ),
            ("validation = 0.15", "validation = 0.7", ("No patient would be left to train on",)),
            ('name = "tiny"', 'name = ""', ("name", "got ''")),
        ],
    )
    def test_a_bad_setting(
        self, tmp_path: Path, old: str, new: str, words: tuple[str, ...]
    ) -> None:
        self._refused(tmp_path, write_toml(tmp_path, (old, new)), *words)

    def test_an_absent_label_column(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(data / "a.png")
        (data / "labels.csv").write_text("image,patient_id,Oedema\na.png,1,1\n")
        source = f'source = "folder"\npath = "{data}"\nfindings = ["Edema"]'
        toml = write_toml(tmp_path, ('source = "phantom"\nimages = 200\nsize = 64', source))
        self._refused(tmp_path, toml, "Label column", "Edema", "Oedema")

    def test_a_missing_data_folder(self, tmp_path: Path) -> None:
        source = 'source = "folder"\npath = "nowhere"'
        toml = write_toml(tmp_path, ('source = "phantom"\nimages = 200\nsize = 64', source))
        self._refused(tmp_path, toml, "labels.csv")

    def test_an_output_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        answer = call("run", write_toml(tmp_path), "--out", tmp_path / "out")
        _assert_refused(answer, "cannot write", str(tmp_path / "out"), code=4)
        assert (tmp_path / "out").read_text() == "mine"

    @pytest.mark.parametrize("command", ["survivel", "--jsn"])
    def test_an_unknown_command(self, command: str) -> None:
        _assert_refused(call(command), command)

    def test_no_file_named(self) -> None:
        _assert_refused(call("run"), "Missing argument")


class TestVerify:
    def test_an_intact_folder(self, tiny_run: TinyRun) -> None:
        answer = call("verify", tiny_run.folder, "--json")
        assert answer.code == 0
        assert json.loads(answer.out) == {
            "folder": str(tiny_run.folder),
            "intact": True,
            "differences": [],
        }
        assert "is intact" in call("verify", tiny_run.folder).out

    @pytest.mark.parametrize("name", ["predictions.parquet", "models/clean/weights.safetensors"])
    def test_a_flipped_byte(self, tiny_run: TinyRun, tmp_path: Path, name: str) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(tiny_run.folder, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        answer = call("verify", copy)
        assert answer.code == 5
        assert answer.out.startswith(f"changed: {name} ")
        as_json = call("verify", copy, "--json")
        assert as_json.code == 5
        assert json.loads(as_json.out)["intact"] is False

    def test_in_a_process_of_its_own(self, tiny_run: TinyRun, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(tiny_run.folder, copy)
        (copy / "report.html").unlink()
        answer = finish(start("verify", copy, "--json"))
        assert answer.code == 5
        assert answer.err == ""
        assert json.loads(answer.out)["differences"] == ["missing: report.html"]

    def test_names_with_control_characters_are_shown_harmlessly(
        self, tiny_run: TinyRun, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(tiny_run.folder, copy)
        (copy / "a\x1b[31m\nb").write_bytes(b"")
        answer = call("verify", copy)
        assert answer.code == 5
        assert "\x1b" not in answer.out
        assert answer.out.count("\n") == 1

    @pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": "lucency/manifest/1"}'])
    def test_a_torn_manifest(self, tmp_path: Path, damage: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(damage)
        _assert_refused(call("verify", tmp_path, "--json"), "manifest.json", code=5)

    def test_no_manifest(self, tmp_path: Path) -> None:
        _assert_refused(call("verify", tmp_path / "nope"), "manifest.json", "not", code=5)


class TestRun:
    def test_json_is_the_answer_and_nothing_else(self, tiny_run: TinyRun) -> None:
        answer = tiny_run.answer
        assert answer.err == ""
        assert answer.out.count("\n") == 1
        found = json.loads(answer.out)
        assert found.pop("folder") == str(tiny_run.folder)
        assert found.pop("report") == str(tiny_run.folder / "report.html")
        assert found == json.loads((tiny_run.folder / "report.json").read_text(encoding="utf-8"))

    def test_in_words(self, tiny_run: TinyRun) -> None:
        answer = call("run", tiny_run.toml, "--out", tiny_run.root)
        assert answer.code == 0
        verdict = json.loads(tiny_run.answer.out)["verdict"]
        places = [answer.out.index(text) for text in verdict["limits"]]
        places += [answer.out.index(text) for text in (verdict["headline"], *verdict["sentences"])]
        assert places == sorted(places)
        assert answer.out.splitlines()[-1] == f"Report: {tiny_run.folder / 'report.html'}"

    def test_data_of_a_drawn_cohort_cannot_be_elsewhere(self, tiny_run: TinyRun) -> None:
        answer = call("run", tiny_run.toml, "--data", "x", "--out", tiny_run.root)
        _assert_refused(answer, "--data", "'phantom'", "tiny.toml")

    @pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
    def test_the_demo(
        self, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, as_json: bool
    ) -> None:
        """With the tiny experiment in place of its own, which is finished already."""
        shipped = []

        def tiny(path: Path, kind: type[ExperimentSettings]) -> ExperimentSettings:
            shipped.append(load_toml(path, kind))
            return load_toml(tiny_run.toml, kind)

        monkeypatch.setattr(lucency.config, "load_toml", tiny)
        answer = call("demo", "--seed", 3, "--out", tiny_run.root, *["--json"] * as_json)
        assert answer.code == 0
        assert (answer.out == tiny_run.answer.out) == as_json
        assert shipped[0].name == "demo"
        assert shipped[0].data.source == "phantom"

    def test_the_version(self) -> None:
        number = call("version").out.strip()
        assert json.loads(call("version", "--json").out) == {"version": number}


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in cli.app.registered_commands]
)
def test_every_command_helps_and_speaks_json(command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert "Usage:" in answer.out
    assert "--json" in answer.out


def test_help_of_the_whole_lists_every_command() -> None:
    answer = call("--help")
    assert answer.code == 0
    for command in ("demo", "run", "survival", "verify", "version"):
        assert command in answer.out


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a user's faults become one sentence."""

    def fail(_: str) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(cli.version.metadata, "version", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        call("version")


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.version.metadata, "version", interrupt)
    _assert_refused(call("version"), "start the same command again", code=130)


def test_a_light_command_does_not_wait_for_torch() -> None:
    code = "import sys; from lucency import cli; sys.argv[1:] = ['version']\n"
    code += "try:\n    cli.main()\nfinally:\n    sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
