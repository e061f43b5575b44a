"""The run folder under crashes, full disks, rival processes and tampering.

Crash points are enumerated, not sampled: a child process is killed at its n-th step on the file
system, n = 1, 2, … until it gets through, and every time the run is resumed and compared.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import Field
from safetensors.numpy import load_file, save_file

import lucency.lock
import lucency.writing
from crash_points import Steps, in_child, killed_at
from lucency.errors import CannotWrite, IntegrityError
from lucency.manifest import MANIFEST, Manifest
from lucency.records import Record
from lucency.runs import (
    RunFolder,
    digest,
    read_json,
    read_manifest,
    verify,
    write_bytes,
    write_json,
    write_text,
    write_via,
)
from lucency.writing import TEMP_PREFIX

Write = Callable[[Path, bytes], None]


class Config(Record):
    """A small configuration."""

    seed: int = 7
    rate: float = 0.5
    names: tuple[str, ...] = ("a", "é")


class Metrics(Record):
    """A small result."""

    schema_: str = Field(default="lucency/test/1", alias="schema")
    auroc: float | None


real_fsync = os.fsync


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing from the page cache; the order of syncs is tested apart."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# --- tools ----------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def temps(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(TEMP_PREFIX)]


# --- a fake run -----------------------------------------------------------------------------------

CONFIG = Config()


def state_after(epoch: int) -> bytes:
    return hashlib.sha256(f"epoch {epoch}".encode()).digest() * 64


def fake_run(root: Path, write: Write = write_bytes) -> list[int]:
    """Three checkpoints, weights, metrics, a table in a sub-folder, manifest; the epochs done.

    It trusts every file that exists: that is what the writer promises.
    """
    done = []
    with RunFolder.open(root, "Fake run!", digest(CONFIG)) as run:
        if run.finished():
            return []
        state = b""
        for epoch in (1, 2, 3):
            checkpoint = run.checkpoint / f"{epoch}.bin"
            if not checkpoint.exists():
                done.append(epoch)
                write(checkpoint, state_after(epoch))
            state = checkpoint.read_bytes()
        weights, metrics = run.path("weights.bin"), run.path("metrics.json")
        if not weights.exists():
            write(weights, state + b"final")
        if not metrics.exists():
            auroc = weights.read_bytes()[0] / 255
            write(metrics, json.dumps({"schema": "x", "auroc": auroc}).encode())
        if not (table := run.path("tables/rows.csv")).exists():
            write(table, metrics.read_bytes() * 9)
        run.finish(config=CONFIG, seed=7, device="cpu", threads=1, timings={"train": 1.5})
    return done


def naive_write(path: Path, data: bytes) -> None:
    """What everybody writes first; a mutant that the test must kill."""
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while data:
        data = data[os.write(fd, data) :]
    os.close(fd)


def crash_everywhere(tmp_path: Path, write: Write) -> tuple[int, int]:
    """(crash points, those after which the resumed run is not as if nothing had happened)."""
    fake_run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    bad = 0
    for n in range(1, 1000):
        root = tmp_path / f"{n}"
        if not killed_at(n, lambda root=root: fake_run(root, write)):  # type: ignore[misc]
            assert contents(root) == expected
            return n - 1, bad
        checkpoints = [int(p.stem) for p in root.rglob("checkpoint/[0-9].bin")]
        finished = any(root.glob("*/manifest.json"))
        try:
            redone = fake_run(root, write)
        except IndexError:  # it tripped over an empty file
            bad += 1
            continue
        assert not temps(root)
        bad += contents(root) != expected
        assert not set(redone) & set(checkpoints), "an epoch was done again"
        assert not (finished and redone), "a finished run was done again"
    raise AssertionError("the run never ended")


def test_every_crash_point_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    points, bad = crash_everywhere(tmp_path, write_bytes)
    assert points > 60
    assert bad == 0


def test_the_naive_writer_is_caught(tmp_path: Path) -> None:
    points, bad = crash_everywhere(tmp_path, naive_write)
    assert bad / points >= 0.25


def test_a_crash_during_the_resume_is_no_worse(tmp_path: Path) -> None:
    fake_run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    draw = random.Random(1)
    for case in range(40):
        root = tmp_path / f"{case}"
        for _ in range(3):
            n = draw.randint(1, 60)
            killed_at(n, lambda root=root: fake_run(root))  # type: ignore[misc]
        fake_run(root)
        assert contents(root) == expected
        assert not temps(root)


def test_data_is_synced_before_it_is_moved_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL does not empty the page cache, so only the order speaks for a power cut."""
    taken: list[str] = []
    Steps(taken.append).install(monkeypatch.setattr)
    write_bytes(tmp_path / "a", b"x")
    assert [t for t in taken if t != "mkdir"] == [
        "open",
        "open",
        "write",
        "fsync",
        "replace",
        "fsync",
    ]


def test_this_disk_accepts_every_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", real_fsync)
    assert fake_run(tmp_path) == [1, 2, 3]
    assert fake_run(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_disk_that_cannot_sync_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """EINVAL says that folders have no sync there; anything else is a fault."""

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:
        write_bytes(tmp_path / "a", b"x")
    else:
        with pytest.raises(CannotWrite):
            write_bytes(tmp_path / "a", b"x")


# --- writing --------------------------------------------------------------------------------------


def test_json_is_readable_and_ordered(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", Metrics(auroc=0.5))
    assert (tmp_path / "a.json").read_text() == (
        '{\n  "schema": "lucency/test/1",\n  "auroc": 0.5\n}\n'
    )
    assert read_json(tmp_path / "a.json", Metrics) == Metrics(auroc=0.5)
    write_json(tmp_path / "b.json", {"z": 1, "a": [Metrics(auroc=None)]})
    assert list(json.loads((tmp_path / "b.json").read_text())) == ["z", "a"]
    write_text(tmp_path / "new" / "c.txt", "é\r\n")
    assert (tmp_path / "new" / "c.txt").read_bytes() == "é\r\n".encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, "\ud800"])
def test_json_that_has_no_json_is_refused_by_path(tmp_path: Path, value: object) -> None:
    with pytest.raises(CannotWrite, match=r"a\.json"):
        write_json(tmp_path / "a.json", {"x": [value]})
    assert not list(tmp_path.iterdir())


def test_libraries_that_want_a_path(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1, 2]})
    write_via(tmp_path / "t.parquet", table.write_parquet)
    assert pl.read_parquet(tmp_path / "t.parquet").equals(table)
    write_via(tmp_path / "w.safetensors", lambda p: save_file({"w": np.ones(3)}, p))
    assert load_file(tmp_path / "w.safetensors")["w"].sum() == 3
    with pytest.raises(CannotWrite, match=r"w\.safetensors: ValueError: no"):
        write_via(tmp_path / "w.safetensors", _refuse)
    assert load_file(tmp_path / "w.safetensors")["w"].sum() == 3
    assert not temps(tmp_path)


def _refuse(path: Path) -> None:
    path.write_bytes(b"half")
    raise ValueError("no")


def test_a_file_that_happens_to_have_the_temps_name_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lucency.writing.secrets, "token_hex", lambda n: "0")
    taken = tmp_path / f"{TEMP_PREFIX}{os.getpid()}-0.txt"
    taken.symlink_to(tmp_path / "victim")
    with pytest.raises(CannotWrite, match=r"a\.txt: File exists"):
        write_text(tmp_path / "a.txt", "x")
    assert not (tmp_path / "victim").exists()


def test_an_interrupt_leaves_no_temp(tmp_path: Path) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_via(tmp_path / "a", stop)
    assert not list(tmp_path.iterdir())


def test_only_plain_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real" / "x")
    for name in ("link", "folder", "pipe", "real/below"):
        with pytest.raises(CannotWrite, match=name):
            write_bytes(tmp_path / name, b"new")
    assert (tmp_path / "real").read_bytes() == b"old"
    assert not temps(tmp_path)


def test_new_files_have_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_random_state_is_left_alone(tmp_path: Path) -> None:
    random.seed(1)
    before = random.getstate()
    write_bytes(tmp_path / "a", b"x")
    assert random.getstate() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_an_error_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    for n in range(1, 100):
        taken = 0

        def act(name: str, n: int = n) -> None:
            nonlocal taken
            taken += 1
            if taken == n:
                raise OSError(number, os.strerror(number))

        message = ""
        with monkeypatch.context() as patch:
            Steps(act).install(patch.setattr)
            try:
                write_bytes(path, b"new" * 100)
            except CannotWrite as error:
                message = str(error)
        assert not temps(tmp_path)
        if taken < n:  # got through
            assert n > 10
            assert path.read_bytes() == b"new" * 100
            return
        if n > 1:  # the first step makes a folder that exists, so its failure does not matter
            assert f"cannot write {path}: {os.strerror(number)}; " in message
        assert path.read_bytes() in (b"old", b"new" * 100)
    raise AssertionError("never got through")


def test_file_size_limit_at_twenty_thresholds(tmp_path: Path) -> None:
    size = 20_000
    array = {"w": np.zeros(size, np.uint8)}
    table = pl.DataFrame({"a": np.random.default_rng(0).integers(0, 1 << 62, size // 8)})
    writers: dict[str, Callable[[Path], None]] = {
        "a.bin": lambda path: write_bytes(path, b"x" * size),
        "a.safetensors": lambda path: write_via(path, lambda p: save_file(array, p)),
        "a.parquet": lambda path: write_via(path, table.write_parquet),
    }
    table.write_parquet(tmp_path / "warm-up")  # starts polars' threads before the forks
    for name in ("a.bin", "a.safetensors"):
        path, write = tmp_path / name, writers[name]
        path.write_bytes(b"old")
        for limit in np.linspace(0, size - 1, 20, dtype=int):

            def child(limit: int = int(limit)) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                write(path)  # noqa: B023

            assert in_child(child) == 4
            assert path.read_bytes() == b"old"
            assert not temps(tmp_path)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, old[1]))
    try:
        with pytest.raises(CannotWrite, match=r"a\.parquet"):
            writers["a.parquet"](tmp_path / "a.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not temps(tmp_path)


def test_a_run_on_a_full_disk_keeps_what_it_had(tmp_path: Path) -> None:
    fake_run(tmp_path)
    (folder,) = tmp_path.iterdir()
    before = contents(folder)

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with RunFolder.open(tmp_path, "Fake run!", digest(CONFIG)) as run:
            write_bytes(run.path("weights.bin"), b"x" * 1000)

    assert in_child(child) == 4
    assert contents(folder) == before
    assert verify(folder) == []


# --- names ----------------------------------------------------------------------------------------


def test_digest_knows_values_not_order() -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest(CONFIG))
    assert digest(Config(seed=8)) != digest(CONFIG)
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    code = "from lucency.runs import digest; print(digest({'a': 1, 'é': [0.1]}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {digest({"é": [0.1], "a": 1}).encode() + b"\n"}


def test_digest_refuses_what_has_no_order_or_no_value() -> None:
    class Bag(Record):
        names: frozenset[str]

    with pytest.raises(TypeError, match="tuple"):
        digest(Bag(names=frozenset("ab")))
    with pytest.raises(ValueError):
        digest({"a": float("nan")})


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("DenseNet 2 px", "densenet-2-px"),
        ("../../etc", "etc"),
        ("", "run"),
        ("ü/ß", "run"),
        ("x" * 500, "x" * 48),
    ],
)
def test_folder_names(tmp_path: Path, name: str, slug: str) -> None:
    with RunFolder.open(tmp_path, name, "0123456789abcdef") as run:
        assert run.folder == tmp_path / f"{slug}-0123456789ab"


def test_no_file_name_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with RunFolder.open(tmp_path, "a", digest(1)) as run:
        (run.folder / "link").symlink_to(tmp_path / "outside")
        for name in ("", "/etc/passwd", "../b", "a/../../b", "link/x"):
            with pytest.raises(CannotWrite):
                run.path(name)
        assert run.path("a/b.json") == run.folder / "a" / "b.json"


def test_a_named_folder_must_be_new_or_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.doc").write_text("years")
    with pytest.raises(CannotWrite, match="not Lucency's"):
        RunFolder.at(tmp_path / "theirs")
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["thesis.doc"]
    with pytest.raises(CannotWrite, match=r"thesis\.doc"):
        RunFolder.at(tmp_path / "theirs" / "thesis.doc")
    for _ in range(2):
        with RunFolder.at(tmp_path / "ours") as run:
            write_bytes(run.path("a"), b"")
            run.finish()
    (tmp_path / "ours" / ".lock").unlink()
    with RunFolder.at(tmp_path / "ours") as run:
        assert run.finished()


def test_a_spoilt_run_is_cleared(tmp_path: Path) -> None:
    fake_run(tmp_path)
    (folder,) = tmp_path.iterdir()
    before = contents(folder)
    (folder / "weights.bin").write_bytes(b"rot")
    (folder / "tables" / "link").symlink_to("/etc")
    with RunFolder.open(tmp_path, "Fake run!", digest(CONFIG)) as run:
        assert run.is_spoilt()
        run.clear()
        assert not run.is_spoilt()
        assert [p.name for p in folder.iterdir()] == [".lock"]
    assert fake_run(tmp_path) == [1, 2, 3]
    assert contents(folder) == before


# --- one owner ------------------------------------------------------------------------------------

HOLD = """
import os, sys, time
from pathlib import Path
from lucency.runs import RunFolder
with RunFolder.open(Path(sys.argv[1]), "a", "0" * 12) as run:
    (run.folder / ".lucency-temp-1-dead").write_bytes(b"half")
    if os.fork() == 0:
        time.sleep(20)  # an orphan, such as a loader's worker
        os._exit(0)
    print("held", flush=True)
    time.sleep(20)
"""


def test_twenty_simultaneous_starts_have_one_winner(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    stay = os.pipe()

    def child(n: int) -> None:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        start = time.monotonic()
        words = b"won"
        try:
            with RunFolder.open(tmp_path, "a", "0" * 12):
                write_bytes(tmp_path / f"{n}.out", f"{os.getpid()} won".encode())
                os.read(stay[0], 1)
                return
        except CannotWrite as error:
            words = str(error).encode()
        took = time.monotonic() - start
        write_bytes(tmp_path / f"{n}.out", f"{os.getpid()} {took} ".encode() + words)

    pids = []
    for n in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(90)  # a failing test must not leave it waiting
            try:
                child(n)
            finally:
                os._exit(0)
        pids.append(pid)
    for _ in range(20):
        os.read(ready[0], 1)
    os.write(go[1], b"." * 20)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("[0-9]*.out"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    outs = [path.read_text() for path in tmp_path.glob("[0-9]*.out")]
    os.write(stay[1], b"." * 20)
    for pid in pids:
        os.waitpid(pid, 0)
    winners = [out for out in outs if out.endswith("won")]
    assert len(outs) == 20
    assert len(winners) == 1
    owner = winners[0].split()[0]
    for out in outs:
        if out not in winners:
            assert f"is in use by process {owner} " in out
            assert float(out.split()[1]) < 30


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        start = time.monotonic()
        with pytest.raises(CannotWrite, match=f"is in use by process {holder.pid} on .*; wait"):
            RunFolder.open(tmp_path, "a", "0" * 12)
        assert time.monotonic() - start < 30
        holder.kill()  # its forked child lives on
        holder.wait()
        start = time.monotonic()
        with RunFolder.open(tmp_path, "a", "0" * 12) as run:
            assert time.monotonic() - start < 30
            assert not temps(run.folder)
            assert str(os.getpid()) in (run.folder / ".lock").read_text()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]


def test_one_process_cannot_own_a_folder_twice(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, "a", "0" * 12),
        pytest.raises(CannotWrite, match=f"process {os.getpid()} "),
    ):
        RunFolder.open(tmp_path, "a", "0" * 12)
    with RunFolder.open(tmp_path, "a", "0" * 12) as run:
        assert str(os.getpid()) in (run.folder / ".lock").read_text()
        run.close()
        run.close()
        assert (run.folder / ".lock").read_text() == "lucency free\n"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("lucency 999999999 {host}\n", "process 999999999 on "),
        ("lucency 1 {host}\n", "process 1 on "),
        ("lucency 12 elsewhere\n", "process 12 on elsewhere"),
        ("", "another process"),
    ],
)
def test_a_held_lock_with_any_name_in_it(tmp_path: Path, left: str, words: str) -> None:
    """A killed owner's name, an owner's on another machine, an owner that is about to sign."""
    lock = tmp_path / ".lock"
    lock.write_text(left.format(host=socket.gethostname()))
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(CannotWrite, match=f"is in use by {words}"):
            RunFolder.at(tmp_path)
        assert time.monotonic() - start < 30
    RunFolder.at(tmp_path).close()


def test_a_new_owner_is_named_not_the_dead_one_before(tmp_path: Path) -> None:
    host = socket.gethostname()
    lock = tmp_path / ".lock"
    lock.write_text(f"lucency 999999999 {host}\n")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        signs = threading.Timer(0.2, lock.write_text, [f"lucency 1 {host}\n"])
        signs.start()
        with pytest.raises(CannotWrite, match="process 1 on"):
            RunFolder.at(tmp_path)
        signs.join()


def test_a_lock_that_is_replaced_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda a, b: False)
    monkeypatch.setattr(lucency.lock, "WAIT_S", 0.1)
    with pytest.raises(CannotWrite, match="keeps being replaced"):
        RunFolder.at(tmp_path)


def test_a_folder_that_cannot_be_tidied_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{TEMP_PREFIX}1").write_bytes(b"")

    def refuse(path: Path, **options: bool) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(CannotWrite, match="Permission denied"):
            RunFolder(tmp_path / "out")
    RunFolder(tmp_path / "out").close()


def test_a_folder_deleted_while_it_is_being_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    times = []

    def flock(fd: int, how: int) -> None:
        times.append(fd)
        if len(times) == 1:
            shutil.rmtree(tmp_path / "out")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunFolder.at(tmp_path / "out") as run:
        assert len(times) == 2
        assert (run.folder / ".lock").exists()


def test_a_child_that_lets_go_closes_nothing_of_its_own(tmp_path: Path) -> None:
    with RunFolder.at(tmp_path / "out") as run:

        def child() -> None:
            mine = os.open("/dev/null", os.O_RDONLY)  # takes the number of the closed lock
            run.close()
            os.fstat(mine)

        assert in_child(child) == 0
        with pytest.raises(CannotWrite):
            RunFolder.at(tmp_path / "out")


def test_a_link_for_a_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(CannotWrite):
        RunFolder.at(tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "precious"


# --- the manifest ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with some depth."""
    root = tmp_path_factory.mktemp("runs")
    draw = random.Random(2)
    with RunFolder.open(root, "deep", digest(CONFIG)) as run:
        for n in range(8):
            write_bytes(run.path(f"{'ab'[n % 2]}/{n}.bin"), draw.randbytes(200 + n))
        write_json(run.path("metrics.json"), Metrics(auroc=0.25))
        write_bytes(run.path("empty"), b"")
        write_bytes(run.path("a/é \n.txt"), b"odd name")
        write_bytes(run.checkpoint / "1.bin", b"gone")
        run.finish(config=CONFIG, seed=7, device="cpu", threads=1, timings={"train": 1.5})
        assert run.finished()
    return run.folder


def test_manifest_says_what_the_numbers_depend_on(finished: Path) -> None:
    manifest = read_manifest(finished)
    raw = json.loads((finished / MANIFEST).read_text())
    assert raw["schema"] == "lucency/manifest/1"
    assert list(raw)[-1] == "seal"
    assert manifest.config == {"seed": 7, "rate": 0.5, "names": ["a", "é"]}
    assert manifest.digest == digest(CONFIG)
    assert finished.name == f"deep-{manifest.digest[:12]}"
    assert {"python", "lucency", "torch", "numpy"} <= set(manifest.versions)
    assert (manifest.seed, manifest.device, manifest.threads) == (7, "cpu", 1)
    assert "poisoned on purpose" in manifest.marking
    paths = [entry.path for entry in manifest.files]
    assert paths == sorted(paths)
    assert len(paths) == 11
    assert not (finished / "checkpoint").exists()


def test_moving_the_folder_changes_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere") == []


def _flip(folder: Path, path: Path, draw: random.Random) -> set[str]:
    data = bytearray(path.read_bytes() or b"\0")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return {f"changed: {_name(folder, path)}"}


def _append(folder: Path, path: Path, draw: random.Random) -> set[str]:
    path.write_bytes(path.read_bytes() + b"\0")
    return {f"changed: {_name(folder, path)}"}


def _cut(folder: Path, path: Path, draw: random.Random) -> set[str]:
    data = path.read_bytes()
    path.write_bytes(data[:-1] if data else b"x")
    return {f"changed: {_name(folder, path)}"}


def _remove(folder: Path, path: Path, draw: random.Random) -> set[str]:
    path.unlink()
    return {f"missing: {_name(folder, path)}"}


def _add(folder: Path, path: Path, draw: random.Random) -> set[str]:
    new = path.parent / draw.choice(["new", ".hidden", "checkpoint", TEMP_PREFIX + "1", ".lock2"])
    new.write_bytes(draw.randbytes(draw.randrange(3)))
    return {f"extra: {_name(folder, new)}"}


def _add_deep(folder: Path, path: Path, draw: random.Random) -> set[str]:
    new = path.parent / "checkpoint" / draw.choice([".lock", MANIFEST, "x"])
    new.parent.mkdir()
    new.write_bytes(b"")
    return {f"extra: {_name(folder, new)}"}


def _rename(folder: Path, path: Path, draw: random.Random) -> set[str]:
    new = path.with_name(path.name + "2")
    path.rename(new)
    return {f"missing: {_name(folder, path)}", f"extra: {_name(folder, new)}"}


def _swap(folder: Path, path: Path, draw: random.Random) -> set[str]:
    others = [p for p in _files(folder) if p != path]
    other = draw.choice(others)
    mine, yours = path.read_bytes(), other.read_bytes()
    path.write_bytes(yours)
    other.write_bytes(mine)
    return {f"changed: {_name(folder, path)}", f"changed: {_name(folder, other)}"}


def _link(folder: Path, path: Path, draw: random.Random) -> set[str]:
    """The same content by way of a link."""
    copy = folder.parent / "copy"
    shutil.copy(path, copy)
    path.unlink()
    path.symlink_to(copy)
    return {f"changed: {_name(folder, path)}"}


def _link_folder(folder: Path, path: Path, draw: random.Random) -> set[str]:
    names = {f"missing: {_name(folder, p)}" for p in (folder / "a").iterdir()}
    (folder / "a").rename(folder.parent / "a")
    (folder / "a").symlink_to(folder.parent / "a")
    return {*names, "extra: a"}


def _pipe(folder: Path, path: Path, draw: random.Random) -> set[str]:
    path.unlink()
    os.mkfifo(path)
    return {f"changed: {_name(folder, path)}"}


EDITS = [_flip, _append, _cut, _remove, _add, _add_deep, _rename, _swap, _link, _link_folder, _pipe]


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return [p for p in found if p.name not in (MANIFEST, ".lock")]


def test_five_hundred_edits_are_found_and_named(finished: Path, tmp_path: Path) -> None:
    draw = random.Random(3)
    for n in range(500):
        folder = tmp_path / f"{n}" / "run"
        shutil.copytree(finished, folder)
        edit = EDITS[n % len(EDITS)]
        expected = edit(folder, draw.choice(_files(folder)), draw)
        found = {re.sub(r" \([^()]*\)$", "", line) for line in verify(folder)}
        assert found == expected, edit.__name__
        shutil.rmtree(folder.parent)


def test_a_torn_or_flipped_manifest_is_refused_by_name(finished: Path, tmp_path: Path) -> None:
    data = (finished / MANIFEST).read_bytes()
    draw = random.Random(4)
    torn = [data[:cut] for cut in np.linspace(0, len(data) - 1, 20, dtype=int)]
    for _ in range(200):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        torn.append(bytes(flipped))
    torn += [data + b" ", data.replace(b'"seed": 7', b'"seed":  7', 1), b"null", b"[" * 99999]
    (tmp_path / "run").mkdir()
    for text in torn:
        (tmp_path / "run" / MANIFEST).write_bytes(text)
        with pytest.raises(IntegrityError, match=r"run/manifest\.json") as caught:
            verify(tmp_path / "run")
        assert caught.value.exit_code == 5
        assert len(str(caught.value)) < 600


def test_a_missing_manifest_is_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not finished"):
        verify(tmp_path)
    with RunFolder.open(tmp_path, "a", "0" * 12) as run:
        assert not run.finished()
        assert not run.is_spoilt()


def test_read_json_refuses_other_kinds_and_pipes(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for text in ("", "{", '{"auroc": NaN}', '{"auroc": 1, "x": 1}', "[]", '{"auroc": "a"}'):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=r"m\.json"):
            read_json(path, Metrics)
    write_json(tmp_path / "good.json", Metrics(auroc=1))
    (tmp_path / "link").symlink_to(tmp_path / "good.json")
    with pytest.raises(IntegrityError, match="link cannot be read"):
        read_json(tmp_path / "link", Metrics)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IntegrityError, match="not a plain file"):
        read_json(tmp_path / "pipe", Metrics)


def test_links_and_pipes_are_not_sealed(tmp_path: Path) -> None:
    for n, make in enumerate((lambda p: p.symlink_to("/etc/passwd"), os.mkfifo)):
        with RunFolder.open(tmp_path, f"{n}", "0" * 12) as run:
            make(run.folder / "odd")
            with pytest.raises(CannotWrite, match="odd is a"):
                run.finish()
            assert not (run.folder / MANIFEST).exists()


def test_a_name_that_is_not_text_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    Path(os.fsdecode(os.fsencode(tmp_path / "run") + b"/\xff")).write_bytes(b"")
    (line,) = verify(tmp_path / "run")
    assert line.isprintable()
    assert "xff" in line


def test_the_manifest_schema_does_not_drift() -> None:
    assert list(Manifest.model_json_schema()["properties"]) == [
        "schema",
        "name",
        "marking",
        "digest",
        "config",
        "versions",
        "seed",
        "device",
        "threads",
        "timings",
        "extra",
        "files",
        "seal",
    ]


def test_no_torch_is_imported() -> None:
    code = "import sys, lucency.runs, lucency.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
