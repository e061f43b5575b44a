"""A command of Lucency in a process of its own: seconds, and memory of it and all its descendants,
sampled from /proc (Linux)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lucency.bench.record import Bar, Row, row
from lucency.errors import LucencyError

INTERVAL_S = 0.1
# The proportional size takes the kernel milliseconds a process: once a second is enough.
PSS_EVERY = 10

PROC = Path("/proc")
NO_PROC = "this system has no /proc"


@dataclass
class Peak:
    """Largest values seen, bytes; 0 = never seen.

    rss: resident sizes of all processes at one moment, added; a page that two share counts twice.
    pss: the same with each shared page divided among its users.
    largest: the high-water mark of the largest process (VmHWM, which the kernel keeps without
    gaps). `ru_maxrss` would be the same, but a child starts with its parent's.
    """

    rss: int = 0
    pss: int = 0
    largest: int = 0
    processes: int = 0
    samples: int = field(default=0, repr=False)

    def sample(self, root: int) -> None:
        """Look once at the tree under process `root`."""
        tree = descendants(root)
        states = [_fields(PROC / str(pid) / "status") for pid in tree]
        self.rss = max(self.rss, sum(s.get("VmRSS", 0) for s in states))
        self.largest = max(self.largest, *(s.get("VmHWM", 0) for s in states))
        self.processes = max(self.processes, len(tree))
        if self.samples % PSS_EVERY == 0:
            shares = [_fields(PROC / str(pid) / "smaps_rollup").get("Pss", 0) for pid in tree]
            self.pss = max(self.pss, sum(shares))
        self.samples += 1


def run_lucency(arguments: Sequence[str], folder: Path) -> tuple[float, Peak, Any]:
    """`lucency ARGUMENTS --json`: wall seconds, peak memory, and what it answered. `folder` takes
    what it says meanwhile. Raises LucencyError for an exit code other than 0."""
    start = "from lucency.cli import main; main()"
    command = [sys.executable, "-c", start, *arguments, "--json"]
    answer, complaint = folder / "answer.json", folder / "complaint.txt"
    with (
        answer.open("wb") as out,
        complaint.open("wb") as err,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err) as process,  # noqa: S603 - our own interpreter and command
    ):
        try:
            seconds, peak = watch(process)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        last = complaint.read_text(errors="replace").strip().splitlines()[-1:]
        raise LucencyError(
            f"lucency {arguments[0]} must finish, but ended with exit code {process.returncode}: "
            f"{' '.join(last) or 'it said nothing'}"
        )
    return seconds, peak, json.loads(answer.read_text(encoding="utf-8"))


def memory_row(name: str, value: int, bar: Bar | None = None) -> Row:
    """Bytes as GiB; without /proc nobody knows."""
    reason = None if value else NO_PROC
    return row(name, value / 2**30 if value else None, "GiB", bar=bar, reason=reason)


def watch(process: subprocess.Popen[bytes]) -> tuple[float, Peak]:
    """Wait for a process that was just started: its wall seconds and its tree's peak memory."""
    start, peak = time.perf_counter(), Peak()
    while True:
        if PROC.joinpath("self/status").exists():
            peak.sample(process.pid)
        try:
            process.wait(INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
        return time.perf_counter() - start, peak


def descendants(root: int) -> list[int]:
    """`root` and every process under it."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            parent = _parent(entry / "stat")
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return tree


def _parent(stat: Path) -> int | None:
    try:
        # The name in brackets may hold anything, brackets and spaces too.
        return int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _fields(path: Path) -> dict[str, int]:
    """The lines `Name: N kB` of a file, in bytes; nothing of a process that has ended."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return {}
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, flags=re.MULTILINE)
    return {name: 1024 * int(kilobytes) for name, kilobytes in found}
