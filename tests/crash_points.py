"""Crash points, enumerated and not sampled: a child process is killed at its n-th step on the file
system, n = 1, 2, … until it gets through."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from lucency.errors import CannotWrite

STEPS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "ftruncate", "pwrite")
WRITING = (os.O_WRONLY, os.O_RDWR)


class Steps:
    """Calls `act` before every step on the file system, and in the middle of every write.

    Opening for reading alone is no step.
    """

    def __init__(self, act: Callable[[str], None]) -> None:
        self.act = act
        self.real = {name: getattr(os, name) for name in STEPS}

    def install(self, patch: Callable[[Any, str, Any], None]) -> None:
        for name in STEPS:
            patch(os, name, getattr(self, f"_{name}", self._before(name)))

    def _before(self, name: str) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.act(name)
            return self.real[name](*args, **options)

        return step

    def _open(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_ACCMODE in WRITING:
            self.act("open")
        return int(self.real["open"](path, flags, *args, **options))

    def _write(self, fd: int, data: Any) -> int:
        """Half of the data at a time, as a large write may."""
        self.act("write")
        return int(self.real["write"](fd, memoryview(data)[: max(1, len(data) // 2)]))


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except CannotWrite:
            code = CannotWrite.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(n: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed at its n-th step; False if it ended before."""
    taken = 0

    def act(name: str) -> None:
        nonlocal taken
        taken += 1
        if taken == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        Steps(act).install(setattr)
        work()

    code = in_child(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0
