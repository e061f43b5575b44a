"""Images in files, decoded by processes that may be killed at any moment.

No try/except protects against an endless loop or a crash inside a decoder, so no file is decoded
in the calling process: a worker that dies, hangs or asks for too much memory costs only the file
in its hands. Workers start when first needed and stay for later reads.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from queue import LifoQueue
from types import TracebackType
from typing import Any, Self

from lucency.data.worker_handle import (
    DIED,
    HUNG,
    OUTCOMES,
    Message,
    Outcome,
    WorkerError,
    WorkerHandle,
)
from lucency.records import Transform

__all__ = ["DIED", "HUNG", "OUTCOMES", "FileImages", "WorkerError", "decoding_limits"]

CHUNK = 4
"""Files that travel to a worker together."""
LOOK_AHEAD = 3
"""Chunks per worker that may be read before the consumer asks for them."""

_Files = list[tuple[int, str]]


class FileImages:
    """N image files as `Images`.

    paths: one file a row; a path is never part of a message. An empty path opens nothing: the
        transform gets an image without pixels, and draws its own.
    workers: how many processes decode; None = as many processors as this process may use, within
        `decoding_limits`.
    timeout_s: seconds that one file may take, decoding and transform together.

    >>> with FileImages(["a.png", "b.png"]) as images:  # doctest: +SKIP
    ...     outcomes = list(images.read([1, 0], transform))

    Closing is optional: the workers end with this object, or with the interpreter.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        workers: int | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._paths = tuple(os.fspath(path) for path in paths)
        self._n_workers = workers or _processors()
        self._timeout_s = timeout_s
        self._pool: _Pool | None = None

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> tuple[str, ...]:
        return self._paths

    def read(self, rows: Sequence[int], transform: Transform) -> Iterator[Outcome]:
        """Yield, in the order of `rows`, a `Decoded`, or (row, reason) for a file that failed.

        transform: pure, and importable in another process (defined in a module, not a lambda).
        A reason is one of `OUTCOMES`.

        Raises `WorkerError`, with the worker's traceback, if the transform raises.
        """
        files = [(int(row), self._paths[row]) for row in rows]
        if not files:
            return
        pool, message = self._started(), Message(transform)
        waiting: deque[Future[list[Outcome]]] = deque()
        try:
            for start in range(0, len(files), CHUNK):
                waiting.append(pool.submit(message, files[start : start + CHUNK]))
                if len(waiting) >= LOOK_AHEAD * self._n_workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the workers; a later `read` starts new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def _started(self) -> _Pool:
        # A forked child inherits this object but not its threads, and must not use its sockets.
        if self._pool is None or self._pool.pid != os.getpid():
            self._pool = _Pool(self._n_workers, self._timeout_s)
            weakref.finalize(self, self._pool.close)
        return self._pool


class _Pool:
    """Threads that each wait for one worker; they do no decoding themselves."""

    def __init__(self, n_workers: int, timeout_s: float) -> None:
        self.pid = os.getpid()
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="lucency-images")
        self._workers = [WorkerHandle(timeout_s) for _ in range(n_workers)]
        # Last in, first out: a short read wakes one worker and leaves the others unstarted.
        self._idle: LifoQueue[WorkerHandle] = LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, message: Message, files: _Files) -> Future[list[Outcome]]:
        return self._threads.submit(self._read, message, files)

    def close(self) -> None:
        """End all; does nothing in a forked child, whose parent still uses the workers."""
        if self.pid != os.getpid():
            return
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _read(self, message: Message, files: _Files) -> list[Outcome]:
        worker = self._idle.get()
        try:
            return worker.read(message, files)
        finally:
            self._idle.put(worker)


_limit: ContextVar[int] = ContextVar("_limit")
"""What `decoding_limits` says, within it."""


@contextmanager
def decoding_limits(workers: int) -> Iterator[None]:
    """Within it, a `FileImages` that is made without a number of workers has at most so many: one
    of several jobs that share a machine must not decode on all of its processors."""
    before = _limit.set(workers)
    try:
        yield
    finally:
        _limit.reset(before)


def _processors() -> int:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, _limit.get(here))
