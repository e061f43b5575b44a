"""Screening as a stream: few images in memory whatever there are, and processes that are killed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lucency.data.guard import FileImages
from lucency.progress import silent
from lucency.report.screen_record import ScreenedImage
from lucency.runs import RunFolder, verify
from lucency.screening import answer as answering
from lucency.screening import lines as writing
from lucency.screening.answer import Answer, write_answer
from lucency.screening.films import FilmList, list_films
from lucency.screening.parts import Rows, here, path_of, read_parts, screen_parts, split
from lucency.screening.run import prepare
from lucency.screening.settings import ScreenSettings
from lucency.screening.worker import Job, Part
from lucency.victims.card import load_victim
from screened_model import model_folder, reference, write_films
from tiny_run import call, finish, start, stop_when
from toy_victims import films

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ScreenSettings(alpha=0.05, engine="torch")
N = 96
"""Three parts of 32."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    model_folder(folder / "model")
    reference(folder / "reference", 60)
    write_films(folder / "suspects", films(N, 0x5E7))
    return folder


@pytest.fixture(scope="module")
def job(place: Path) -> Job:
    return prepare(
        load_victim(place / "model", run_code=True), list_films([place / "reference"]), SETTINGS
    )[1]


@pytest.fixture(scope="module")
def first_part(place: Path, job: Job) -> Part:
    (part,) = here(job, list_films([place / "suspects"]), split(N)[:1])
    return part


class TestMemory:
    """A part as it comes from a worker holds some kilobytes an image. That none stays is seen by
    what one image more costs, when nothing but the list of names and a few numbers may."""

    def _films(self, n: int) -> FilmList:
        nobody = (None,) * n
        names = tuple(f"{i:09d}.png" for i in range(n))
        return FilmList(tuple(map(Path, names)), names, nobody, nobody)

    def _copies(self, first_part: Part) -> Any:
        """Screens nothing, cheaply: every part is like the first."""

        def run(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
            for rows in parts:
                pairs = zip(rows, first_part.lines, strict=True)
                lines = tuple(
                    line.model_copy(update={"image": films.names[row]}) for row, line in pairs
                )
                yield first_part.model_copy(update={"first": rows[0], "lines": lines})

        return run

    def test_parts_are_let_go_as_they_come(
        self, job: Job, first_part: Part, tmp_path: Path
    ) -> None:
        alive: list[weakref.ref[Part]] = []
        most = 0

        def watched(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
            nonlocal most
            for part in self._copies(first_part)(job, films, parts):
                alive.append(weakref.ref(part))
                yield part
                most = max(most, sum(reference() is not None for reference in alive))

        screen_parts(job, self._films(1600), tmp_path, watched, progress=silent)
        assert len(alive) == 50
        # The one that was handed over and, until its successor comes, the one before.
        assert most <= 2
        assert [part.first for part in read_parts(tmp_path, 1600)] == list(range(0, 1600, 32))

    def test_an_answer_takes_bytes_an_image(
        self,
        place: Path,
        job: Job,
        first_part: Part,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """From the parts to all files but the page; the pictures of the gallery are of 24."""
        monkeypatch.setattr(writing, "CHUNK", 64)
        monkeypatch.setattr(answering, "draw_gallery", _no_gallery)
        # Its permutations take the same megabytes for any number of films, and would hide others.
        monkeypatch.setattr(answering, "shift", lambda *_, **__: "not asked")
        sizes = (640, 2560)
        few, many = (self._peak(place, job, first_part, tmp_path / str(n), n) for n in sizes)
        a_line = len(first_part.model_dump_json()) / len(first_part.lines)
        assert a_line > 500
        assert (many - few) / (sizes[1] - sizes[0]) < 250, (few, many)

    def _peak(self, place: Path, job: Job, first_part: Part, out: Path, n: int) -> int:
        films = self._films(n)
        with RunFolder.at(out) as folder:
            screen_parts(job, films, folder.checkpoint, self._copies(first_part), progress=silent)
            answer = Answer(
                settings=SETTINGS,
                model=place / "model",
                job=job,
                suspects=films,
                n_reference=60,
                n_patients=None,
                rejected=0,
                described=np.zeros((0, len(first_part.described[0])), np.float32),
                warnings=(),
                calibration_seconds=1.0,
                seconds=1.0,
                command="",
                digests={},
            )
            gc.collect()
            tracemalloc.start()
            try:
                report = write_answer(answer, folder, silent)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert report.counts.screened == n
        text = (out / "screen.jsonl").read_text(encoding="utf-8")
        names = [json.loads(line)["image"] for line in text.splitlines()]
        assert names == list(films.names)
        assert pl.read_parquet(out / "screen.parquet")["image"].to_list() == names
        return peak

    def test_the_numbers_of_a_batch_take_bytes_an_image(
        self, job: Job, first_part: Part, tmp_path: Path
    ) -> None:
        """Suspicion, p-value and the description: 2 numbers of 8 bytes and some of 4, twice while
        they are put together."""
        films = self._films(2560)
        screen_parts(job, films, tmp_path, self._copies(first_part), progress=silent)
        peaks = []
        for n in (640, 2560):
            tracemalloc.start()
            try:
                columns = answering._columns(read_parts(tmp_path, n))
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert columns.described.shape == (n, len(first_part.described[0]))
            assert columns.p_value.shape == (n,)
        assert (peaks[1] - peaks[0]) / (2560 - 640) < 250, peaks

    def test_a_table_in_pieces_is_the_table(
        self, first_part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A score that only some lines have, and a piece of rejected lines alone."""
        rejected = ScreenedImage(image="x", status="rejected", reason="damaged")
        odd = first_part.lines[0].model_copy(update={"scores": {"new": 1.0}})
        lines = [*first_part.lines[:3], *[rejected] * 3, odd, first_part.lines[3]]
        writing.write_table(tmp_path / "whole.parquet", iter(lines), tmp_path / "a")
        monkeypatch.setattr(writing, "CHUNK", 3)
        writing.write_table(tmp_path / "pieces.parquet", iter(lines), tmp_path / "b")
        assert len(list((tmp_path / "b").iterdir())) == 3
        whole, pieces = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("whole", "pieces"))
        assert whole.columns == pieces.columns
        assert whole.schema == pieces.schema
        assert whole.equals(pieces)
        assert whole["score: new"].to_list() == [None] * 6 + [1.0, None]

    def test_image_workers_do_without_torch(self) -> None:
        """It would cost each of them seconds and half a gigabyte."""
        code = "import sys, lucency.screening.reading; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

    def test_reading_runs_ahead_of_the_network_by_little(
        self, place: Path, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A part is read when it is asked for, not all parts at once."""
        read: list[int] = []
        original = FileImages.read

        def counted(self: FileImages, rows: Any, transform: Any) -> Any:
            read.extend(rows)
            return original(self, rows, transform)

        monkeypatch.setattr(FileImages, "read", counted)
        found = here(job, list_films([place / "suspects"]), split(N))
        next(iter(found))
        assert read == list(range(32))
        found.close()  # type: ignore[attr-defined]


def _no_gallery(*_: Any) -> Any:
    from safetensors.numpy import save_file

    return (), lambda path: save_file({}, path)


def _arguments(place: Path, out: Path) -> tuple[Any, ...]:
    return (
        *("screen", place / "suspects", "--model", place / "model", "--engine", "torch"),
        *("--run-code", "--reference", place / "reference", "--alpha", "0.05", "--out", out),
    )


@pytest.fixture
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that this one starts find the tests' modules."""
    tests = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests / "screening"), str(tests)]))


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> Path:
    answer = call(*_arguments(place, place / "whole"))
    assert answer.code == 0, answer.err
    return place / "whole"


def _lines(folder: Path) -> list[ScreenedImage]:
    text = (folder / "screen.jsonl").read_text(encoding="utf-8")
    return [ScreenedImage.model_validate_json(line) for line in text.splitlines()]


def _timeless(lines: list[ScreenedImage]) -> list[ScreenedImage]:
    return [line.model_copy(update={"seconds": None}) for line in lines]


class TestKilled:
    @pytest.mark.parametrize("with_", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
    def test_in_the_middle(
        self,
        place: Path,
        findable: None,
        uninterrupted: Path,
        tmp_path: Path,
        with_: signal.Signals,
    ) -> None:
        """A real process, after its first part; what it did is not done again."""
        out = tmp_path / "out"
        first = path_of(out / "checkpoint", 0)
        process = start(*_arguments(place, out))
        stop_when(process, first.exists, with_)
        stopped = finish(process)
        if with_ == signal.SIGINT:
            assert stopped.code == 130
            assert "start the same command again" in stopped.err
        else:
            assert stopped.code == -signal.SIGKILL
        assert not (out / "screen.jsonl").exists()
        done = Part.model_validate_json(first.read_text(encoding="utf-8"))

        answer = call(*_arguments(place, out))
        assert answer.code == 0, answer.err
        assert [line.seconds for line in _lines(out)[:32]] == [line.seconds for line in done.lines]
        assert _timeless(_lines(out)) == _timeless(_lines(uninterrupted))
        assert len(_lines(out)) == N
        assert verify(out) == []
        assert not (out / "checkpoint").exists()

    def test_while_it_writes_its_answer(
        self, place: Path, findable: None, uninterrupted: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        process = start(*_arguments(place, out))
        stop_when(process, (out / "screen.jsonl").exists, signal.SIGKILL)
        assert finish(process).code == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
        answer = call(*_arguments(place, out))
        assert answer.code == 0, answer.err
        assert _timeless(_lines(out)) == _timeless(_lines(uninterrupted))
        assert verify(out) == []

    def test_a_torn_part_is_said_not_used(
        self, place: Path, uninterrupted: Path, tmp_path: Path
    ) -> None:
        """No process tears one, but a disk may."""
        out = tmp_path / "out"
        self._interrupted(place, out)
        path_of(out / "checkpoint", 32).write_text('{"first": 32, "lines"')
        answer = call(*_arguments(place, out), "--json")
        assert answer.code == 5
        assert len(answer.err.splitlines()) == 1
        assert "part-000000032.json" in answer.err
        shutil.rmtree(out)
        assert call(*_arguments(place, out)).code == 0

    def _interrupted(self, place: Path, out: Path) -> None:
        """As a process leaves it that was killed while it wrote its answer."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lucency.screening.run.write_answer", _stop)
            assert call(*_arguments(place, out)).code == 130


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


class TestTwoProcesses:
    def test_one_works_and_the_other_is_told_who(
        self, place: Path, findable: None, uninterrupted: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        process = start(*_arguments(place, out))
        try:
            stop_when(process, path_of(out / "checkpoint", 0).exists, signal.SIGSTOP)
            second = call(*_arguments(place, out), "--json")
        finally:
            process.send_signal(signal.SIGCONT)
        assert second.code == 4
        assert second.out == ""
        assert f"in use by process {process.pid} on " in second.err
        assert len(second.err.splitlines()) == 1
        first = finish(process)
        assert first.code == 0, first.err
        assert _timeless(_lines(out)) == _timeless(_lines(uninterrupted))
        assert verify(out) == []

    def test_another_question_does_not_clear_what_is_in_use(
        self, place: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with RunFolder.at(out) as folder:
            path = path_of(folder.checkpoint, 0)
            path.parent.mkdir(parents=True)
            path.write_text("{}")
            assert call(*_arguments(place, out), "--seed", "9").code == 4
            assert path.exists()
