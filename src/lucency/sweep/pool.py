"""Who does the jobs of a sweep: processes of this machine.

A pool is given jobs and says which one ended, and why if it failed. A job that fails, or whose
process dies, fails alone.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from lucency.errors import LucencyError
from lucency.sweep.jobs import Job, carry_out
from lucency.victims.victim import default_device

_ENVIRONMENT = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class Ended(NamedTuple):
    """A job that ended; error: why it failed, None if it did not."""

    job: Job
    error: str | None


class Pool(Protocol):
    """Jobs go in, and come back in any order."""

    def submit(self, job: Job) -> None: ...

    def next(self) -> Ended:
        """Wait for the next one to end; at least one must be under way."""
        ...


class _Worker(NamedTuple):
    process: Any
    connection: Connection[Any, Any]


class Processes:
    """`n` processes, each of one thread; one that dies takes its job with it, and is replaced."""

    def __init__(self, n: int) -> None:
        self._context = get_context("spawn")
        self._waiting: deque[Job] = deque()
        self._idle = [self._start() for _ in range(n)]
        self._busy: dict[Connection[Any, Any], tuple[_Worker, Job]] = {}

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._hand_out()

    def next(self) -> Ended:
        ready = wait(list(self._busy))
        worker, job = self._busy.pop(next(c for c in self._busy if c in ready))
        try:
            error = worker.connection.recv_bytes().decode() or None
        except (EOFError, OSError):
            worker.process.join()
            error = (
                f"The process that worked on it died (exit code {worker.process.exitcode}); is "
                "there enough memory for each of the --workers? Start the same command again to "
                "go on."
            )
            worker = self._start()
        self._idle.append(worker)
        self._hand_out()
        return Ended(job, error)

    def close(self) -> None:
        """Stop everybody at once: what is lost is at most an epoch each."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            worker, job = self._idle.pop(), self._waiting.popleft()
            worker.connection.send(job)
            self._busy[worker.connection] = (worker, job)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,))
        with _one_thread():
            process.start()
        theirs.close()
        return _Worker(process, ours)


@contextmanager
def processes(n: int) -> Iterator[Pool]:
    """`n` processes, gone when the block is left."""
    pool = Processes(n)
    try:
        yield pool
    finally:
        pool.close()


def _serve(connection: Connection[Any, Any]) -> None:
    """The life of a worker: until its parent's end of the pipe is closed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            carry_out(job)
        except LucencyError as error:
            connection.send_bytes(str(error).encode())
        else:
            connection.send_bytes(b"")


def _die_with_parent() -> None:
    """A parent that was killed tells nobody, and an orphan would keep its folder's lock."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Libraries read these when they are loaded, so a child must be born with them."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(dict.fromkeys(_ENVIRONMENT, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def n_processors() -> int:
    """Those that this process may use; on a GPU the jobs share it, one at a time."""
    if default_device().type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
