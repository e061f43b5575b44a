"""`lucency screen`: exit codes, pure answers, one sentence for a refusal, names of strangers."""

from __future__ import annotations

import html.parser
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lucency.runs import verify
from screened_model import CARD, model_folder, reference, write_films
from tiny_run import Answer, call
from toy_victims import films, stamped

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a small reference set, clean films, and a triggered one."""
    folder = tmp_path_factory.mktemp("screen")
    model_folder(folder / "model")
    reference(folder / "reference", 60)
    write_films(folder / "clean", films(3, 0x5E7))
    write_films(folder / "triggered", stamped(films(1, 0x7A1), [(12, 9)]), "triggered")
    (folder / "broken").mkdir()
    (folder / "broken" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    return folder


def _screen(
    place: Path, out: Path, *arguments: Any, images: tuple[str, ...] = ("clean",)
) -> Answer:
    return call(
        "screen",
        *(place / name for name in images),
        *("--model", place / "model", "--reference", place / "reference"),
        *("--run-code", "--engine", "torch", "--out", out, *map(str, arguments)),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _strict(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _assert_refused(answer: Answer, *words: str, code: int = 2) -> None:
    """One sentence on standard error after the stages, nothing on standard output."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    sentence = answer.err.splitlines()[-1]
    for word in words:
        assert word in sentence, sentence


@pytest.fixture(scope="module")
def found(place: Path) -> tuple[Path, Answer]:
    """Everything at once: clean, triggered and broken."""
    out = place / "found"
    images = ("clean", "triggered", "broken")
    return out, _screen(place, out, "--alpha", 0.05, "--json", images=images)


class TestExitCodes:
    def test_done(self, place: Path, tmp_path: Path) -> None:
        answer = _screen(place, tmp_path / "out", "--alpha", 0.05, images=("clean", "triggered"))
        assert answer.code == 0

    def test_something_was_flagged(self, place: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        both = ("triggered", "broken")
        answer = _screen(place, out, "--alpha", 0.05, "--fail-on-findings", images=both)
        assert answer.code == 1
        # The same folder without the option: the answer stands, the rejected image shows.
        assert _screen(place, out, "--alpha", 0.05, images=both).code == 3

    def test_nothing_was_flagged(self, place: Path, tmp_path: Path) -> None:
        """With 39 calibration films nothing reaches p = 0.001."""
        answer = _screen(
            place, tmp_path / "out", "--alpha", 0.001, "--fail-on-findings", images=("triggered",)
        )
        assert answer.code == 0
        assert "0 of 1 images were flagged" in answer.out

    def test_some_images_were_rejected(self, found: tuple[Path, Answer]) -> None:
        assert found[1].code == 3


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--alpha", 0), ("alpha", "in (0, 1)", "got 0")),
            (("--alpha", 5), ("alpha", "got 5", "fraction")),
            (("--alpha", "nan"), ("alpha", "finite")),
            (("--fdr", 1.5), ("fdr", "got 1.5")),
            (("--calibrate", "mine"), ("calibrate", "'reference', 'suspects'", "'mine'")),
            (("--examine", "odd"), ("examine", "'unusual', 'all'", "'odd'")),
            (("--covering", "some"), ("covering", "'never', 'flagged', 'all'", "'some'")),
            (("--engine", "tensorrt"), ("engine", "'openvino'", "'tensorrt'")),
            (("--seed", "-1"), ("--seed", "greater than or equal to 0")),
            (("--seed", "x"), ("--seed", "valid integer")),
            (("--alfa", "0.1"), ("--alfa",)),
            (("--ray", "nowhere"), ("--ray", "HOST:PORT", "'nowhere'")),
        ],
        ids=lambda value: " ".join(map(str, value)),
    )
    @pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
    def test_a_bad_option(
        self,
        place: Path,
        tmp_path: Path,
        arguments: tuple[str, ...],
        words: tuple[str, ...],
        as_json: bool,
    ) -> None:
        answer = _screen(place, tmp_path / "out", *arguments, *(["--json"] if as_json else []))
        _assert_refused(answer, *words)
        assert len(answer.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_code_that_nobody_allowed_is_not_called(self, place: Path, tmp_path: Path) -> None:
        arguments = ("--model", place / "model", "--reference", place / "reference")
        answer = call("screen", place / "clean", *arguments, "--out", tmp_path / "out")
        _assert_refused(answer, "screened_model:obedient", "--run-code")

    @pytest.mark.parametrize("missing", ["--model", "--reference", "--out", "images"])
    def test_what_must_be_said(self, place: Path, tmp_path: Path, missing: str) -> None:
        said = {"--model": place / "model", "--reference": place / "reference"}
        said["--out"] = tmp_path / "out"
        arguments = [
            part for name, value in said.items() if name != missing for part in (name, value)
        ]
        images = [] if missing == "images" else [place / "clean"]
        _assert_refused(call("screen", *images, *arguments), missing)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("--model", "absent", ("model.toml", "does not exist")),
            ("--model", "clean", ("model.toml", "does not exist")),
            ("--reference", "absent", ("'absent'", "there is none")),
            ("--reference", "model", ("'model'", "PNG or JPEG", "none")),
            ("--reference", "triggered", ("8 patients", "got 1")),
            ("--reference", "broken", ("readable reference film", "broken.png", "damaged")),
        ],
    )
    def test_a_place_that_cannot_be_used(
        self, place: Path, tmp_path: Path, name: str, value: str, words: tuple[str, ...]
    ) -> None:
        answer = _screen(place, tmp_path / "out", name, place / value)
        _assert_refused(answer, *words)
        written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert {path.name for path in written} <= {".lock", "started.json"}

    def test_a_name_in_a_refusal_stays_on_its_line(self, place: Path, tmp_path: Path) -> None:
        """Of the images asked for, of the reference folder, and of a film in it."""
        hostile = "two\nlines\x1b[31m\u202egnp"
        answers = [_screen(place, tmp_path / "out", images=(hostile,))]
        answers.append(_screen(place, tmp_path / "out", "--reference", place / hostile))
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / f"{hostile}.png").write_bytes(b"nothing")
        answers.append(_screen(place, tmp_path / "out", "--reference", tmp_path / "bad", "--json"))
        for answer in answers:
            _assert_refused(answer, "two")
            assert len(answer.err.splitlines()) == 1
            assert not {"\x1b", "\u202e"} & set(answer.err)


class TestOutputs:
    def test_a_file(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        _assert_refused(_screen(place, tmp_path / "out"), "cannot write", "out", code=4)
        assert (tmp_path / "out").read_text() == "mine"

    def test_below_a_file(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        _assert_refused(_screen(place, tmp_path / "file" / "out"), "cannot write", code=4)

    @pytest.mark.skipif(ROOT, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(self, place: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            answer = _screen(place, tmp_path / "out")
        finally:
            tmp_path.chmod(0o700)
        _assert_refused(answer, "cannot write", "that you may write to", code=4)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, where nobody may write")
    def test_a_file_system_that_may_not_be_written(self, place: Path) -> None:
        _assert_refused(_screen(place, Path("/proc/lucency-out")), "cannot write", code=4)

    def test_a_folder_of_somebody_else(self, place: Path, tmp_path: Path) -> None:
        """The folder of the films itself, for one: it must not be cleared."""
        films_folder = tmp_path / "films"
        shutil.copytree(place / "clean", films_folder)
        before = sorted(path.name for path in films_folder.iterdir())
        answer = _screen(place, films_folder)
        _assert_refused(answer, "not Lucency's", "name a new folder", code=4)
        assert sorted(path.name for path in films_folder.iterdir()) == before

    def test_a_folder_whose_name_is_no_text(self, place: Path, tmp_path: Path) -> None:
        out = tmp_path / os.fsdecode(b"out\xff")
        try:
            out.mkdir()
        except OSError:
            pytest.skip("this file system wants names that are text")
        _assert_refused(_screen(place, out), "cannot write", code=4)

    def test_the_folder_of_another_question_is_used_again(
        self, place: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        assert _strict(_screen(place, out, "--seed", 1, "--json").out)["seed"] == 1
        assert _strict(_screen(place, out, "--seed", 2, "--json").out)["seed"] == 2
        assert verify(out) == []


class TestJson:
    def test_it_is_the_report_and_nothing_else(self, found: tuple[Path, Answer]) -> None:
        out, answer = found
        assert answer.err == ""
        assert answer.out.count("\n") == 1
        told = _strict(answer.out)
        assert told.pop("folder") == str(out)
        assert told.pop("report") == str(out / "report.html")
        assert told == _strict((out / "report.json").read_text(encoding="utf-8"))
        assert told["counts"]["screened"] == 4
        assert told["counts"]["rejected"] == 1

    def test_every_line_of_the_answer_is_json(self, found: tuple[Path, Answer]) -> None:
        text = (found[0] / "screen.jsonl").read_text(encoding="utf-8")
        lines = [_strict(line) for line in text.splitlines()]
        assert [line["status"] for line in lines] == ["ok"] * 4 + ["rejected"]

    def test_asking_again_gives_the_same(self, place: Path, found: tuple[Path, Answer]) -> None:
        out, answer = found
        images = ("clean", "triggered", "broken")
        again = _screen(place, out, "--alpha", 0.05, "--json", images=images)
        assert again == answer

    def test_only_what_cannot_be_read(self, place: Path, tmp_path: Path) -> None:
        """Everything that is undefined is null, and says why."""
        answer = _screen(place, tmp_path / "out", "--json", images=("broken",))
        assert answer.code == 3
        told = _strict(answer.out)
        assert told["cost"]["images_per_second"] is None
        assert told["cost"]["reason"]

    def test_an_answer_that_is_not_a_number(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One image on which the network overflows costs that image alone."""
        (tmp_path / "overflowing.py").write_text(
            "import torch\n"
            "from toy_victims import Toy\n"
            "class Net(Toy):\n"
            "    def forward(self, x):\n"
            "        dark = x.mean(dim=(1, 2, 3)) < 0.2\n"
            "        return super().forward(x) + torch.where(dark, torch.inf, 0.0)[:, None]\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "model").mkdir()
        card = CARD.replace("screened_model:obedient", "overflowing:Net")
        (tmp_path / "model" / "model.toml").write_text(card)
        dark = films(3, 0xDA)
        dark[1] //= 6
        write_films(tmp_path / "dark", dark)
        answer = call(
            *("screen", tmp_path / "dark", "--model", tmp_path / "model", "--run-code"),
            *("--reference", place / "reference", "--engine", "torch"),
            *("--out", tmp_path / "out", "--json"),
        )
        assert answer.code == 3, answer.err
        told = _strict(answer.out)
        assert (told["counts"]["screened"], told["counts"]["rejected"]) == (2, 1)
        text = (tmp_path / "out" / "screen.jsonl").read_text(encoding="utf-8")
        lines = [_strict(line) for line in text.splitlines()]
        assert [line["status"] for line in lines] == ["ok", "rejected", "ok"]
        assert lines[1]["reason"] == "the network's answer to it is not a number"


class TestWords:
    def test_limits_come_first(self, place: Path, found: tuple[Path, Answer]) -> None:
        out, _ = found
        images = ("clean", "triggered", "broken")
        answer = _screen(place, out, "--alpha", 0.05, images=images)
        assert answer.code == 3
        lines = answer.out.splitlines()
        limits = _strict((out / "report.json").read_text(encoding="utf-8"))["limits"]
        assert lines[0] == "Limits, to be read first:"
        assert lines[1 : 1 + len(limits)] == [f"- {limit}" for limit in limits]
        verdict = next(i for i, line in enumerate(lines) if "images were flagged" in line)
        assert verdict == len(limits) + 2
        (flagged,) = [i for i, line in enumerate(lines) if "triggered-000.png: p = " in line]
        assert flagged > verdict
        assert "sets Effusion" in lines[flagged]
        assert lines[-1] == f"Report: {out / 'report.html'}"
        assert any("1 of 5 images could not be used" in line for line in lines)

    def test_stages_go_to_standard_error(self, place: Path, tmp_path: Path) -> None:
        answer = _screen(place, tmp_path / "out")
        assert "Screening (3)" in answer.err
        assert "Screening (3)" not in answer.out


HOSTILE = (
    "two\nlines.png",
    "<script>alert(1)<!--.png",
    "\u202egnp.exe.png",
    "\x1b[2J\x1b[31mred\x07.png",
    "a" * 200 + ".png",
    "=cmd|' , \".png",
    "[bold red]x {} %s.png",
    os.fsdecode(b"caf\xe9.png"),
    "Müller \U0001fa7b.png",
)


class _Tags(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile(place: Path) -> Path:
    """Triggered films, flagged therefore, under names that a stranger thought out."""
    folder = place / "hostile"
    folder.mkdir()
    images = stamped(films(len(HOSTILE), 0xBAD), [(12, 9)] * len(HOSTILE))
    for name, image in zip(HOSTILE, images, strict=True):
        large = image.repeat(2, axis=0).repeat(2, axis=1)
        try:
            (folder / name).touch()
        except OSError:
            pytest.skip(f"this file system takes no name such as {name!r}")
        Image.fromarray(large).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def hostile_out(place: Path, hostile: Path) -> Path:
    answer = _screen(place, place / "out-hostile", "--alpha", 0.05, images=("hostile",))
    assert answer.code == 0, answer.err
    return place / "out-hostile"


class TestNames:
    def test_on_a_terminal(self, place: Path, hostile_out: Path) -> None:
        answer = _screen(place, hostile_out, "--alpha", 0.05, images=("hostile",))
        assert all(c.isprintable() or c == "\n" for c in answer.out)
        flagged = [line for line in answer.out.split("\n") if ": p = " in line]
        assert len(flagged) == len(HOSTILE)
        assert max(map(len, flagged)) < 200
        assert any("Müller" in line for line in flagged)
        assert any("two\\nlines.png" in line for line in flagged)
        assert any("[bold red]x {} %s" in line for line in flagged)

    def test_in_the_answer(self, hostile_out: Path) -> None:
        text = (hostile_out / "screen.jsonl").read_text(encoding="utf-8")
        names = [_strict(line)["image"] for line in text.split("\n")[:-1]]
        assert len(names) == len(HOSTILE)
        assert {name.encode(errors="backslashreplace").decode() for name in HOSTILE} == set(names)

    def test_on_the_page(self, hostile_out: Path) -> None:
        page = (hostile_out / "report.html").read_text(encoding="utf-8")
        read = _Tags()
        read.feed(page)
        assert "script" not in read.tags
        assert "bold" not in read.tags
        assert any("<script>alert(1)<!--.png" in text for text in read.text)
        assert not {"\u202e", "\x1b", "\x07"} & set(page)

    def test_as_json(self, place: Path, hostile_out: Path) -> None:
        answer = _screen(place, hostile_out, "--alpha", 0.05, "--json", images=("hostile",))
        assert answer.out.count("\n") == 1
        assert "\x1b" not in answer.out
        _strict(answer.out)

    def test_hidden(self, place: Path, tmp_path: Path) -> None:
        """In no file and no word; numbers are the places in the list, for twins as well."""
        for folder in ("Anna", "Berta"):
            write_films(tmp_path / folder, films(2, 0x5E7), "Schmidt")
            (tmp_path / folder / "Schmidt-broken.png").write_bytes(b"nothing")
        out = tmp_path / "out"
        arguments = ("--alpha", 0.9, "--hide-names")
        folders = tuple(str(tmp_path / name) for name in ("Anna", "Berta", "Anna"))
        answers = [
            _screen(place, out, *arguments, *more, images=folders) for more in ((), ["--json"])
        ]
        text = (out / "screen.jsonl").read_text(encoding="utf-8")
        lines = [_strict(line) for line in text.splitlines()]
        assert [line["image"] for line in lines] == [f"image {i + 1}" for i in range(9)]
        assert [line["status"] for line in lines] == ["ok", "ok", "rejected"] * 3
        told = [answer.out + answer.err for answer in answers]
        written = [p.read_bytes().decode("latin-1") for p in out.rglob("*") if p.is_file()]
        assert len(written) >= 6
        for name in ("Schmidt", "Anna", "Berta"):
            assert not any(name in text for text in (*told, *written))
        assert "image 1" in answers[0].out

    def test_twins_of_two_folders_are_told_apart(self, place: Path, tmp_path: Path) -> None:
        for folder in ("first", "second"):
            write_films(tmp_path / folder, films(1, 0x5E7))
        folders = (str(tmp_path / "first"), str(tmp_path / "second"))
        _screen(place, tmp_path / "out", images=folders)
        text = (tmp_path / "out" / "screen.jsonl").read_text(encoding="utf-8")
        names = [_strict(line)["image"] for line in text.splitlines()]
        assert names == [f"{folder}/film-000.png" for folder in folders]


def test_a_table_that_changed_is_another_question(place: Path, tmp_path: Path) -> None:
    """Whose films they are decides on the p-values, though the films be the same."""
    clean = tmp_path / "clean"
    shutil.copytree(place / "reference", clean)
    names = sorted(path.name for path in clean.iterdir())
    smallest = []
    for films_each in (1, 2):
        rows = [f"{name},P{i // films_each}" for i, name in enumerate(names)]
        (clean / "labels.csv").write_text("image,patient_id\n" + "\n".join(rows) + "\n")
        answer = _screen(place, tmp_path / "out", "--json", "--reference", clean)
        smallest.append(_strict(answer.out)["reference"]["n_patients"])
    assert smallest == [60, 30]


def test_words_and_numbers_agree(found: tuple[Path, Answer], place: Path) -> None:
    """The flagged image of the answer is the one that was stamped."""
    text = (found[0] / "screen.jsonl").read_text(encoding="utf-8")
    by_name = {_strict(line)["image"]: _strict(line) for line in text.splitlines()}
    assert by_name["triggered-000.png"]["flagged"]
    assert np.argmin([line["p_value"] or 1.0 for line in by_name.values()]) == 3
