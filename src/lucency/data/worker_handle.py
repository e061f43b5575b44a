"""The parent's side of one decoding process: start, ask, watch, kill and start again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lucency.data.decode import MAX_PIXELS, Refusal
from lucency.records import Decoded, Image, Transform

HUNG = "decoding took too long"
DIED = "the decoder died"
OUTCOMES: tuple[str, ...] = (*get_args(Refusal), HUNG, DIED)
"""The closed list of reasons for which a file is not used."""

Outcome = Decoded | tuple[int, str]

_START_S = 120.0
_MAX_HEADER_BYTES = 2**20
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lucency.data.decode_worker import serve; serve(int(sys.argv[2]), float(sys.argv[3]))"
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives every image's megabytes back to the system and faults them in again for the next
    # one, at a tenth of the decoding time; elsewhere these have no effect.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}


class WorkerError(RuntimeError):
    """A fault of the program, not of a file: a transform raised, or no worker can be started."""


class _Lost(Exception):
    """The process is gone or silent; the reason is one of `OUTCOMES`."""


class Message:
    """A transform, pickled once per read however many workers it is sent to."""

    def __init__(self, transform: Transform) -> None:
        try:
            self.payload = bytes(ForkingPickler.dumps(transform))
        except Exception as error:
            raise WorkerError(
                f"The transform must be importable from a module, so that another process can run "
                f"it; got {transform!r}: {error}"
            ) from error


class WorkerHandle:
    """One decoding process, replaced whenever it has to be killed. Used by one thread at a time.

    timeout_s: seconds that one file may take, decoding and transform together.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._loaded: Message | None = None

    def read(self, message: Message, files: Sequence[tuple[int, str]]) -> list[Outcome]:
        """The outcome of each (row, path), in order. A lost process costs the file it held."""
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(files):
                self._read_until_lost(message, files, outcomes)
        except BaseException:
            self.stop()  # answers to these files may still be on their way
            raise
        return outcomes

    def stop(self) -> None:
        """Kill the process; the next `read` starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = self._loaded = None

    def _read_until_lost(
        self, message: Message, files: Sequence[tuple[int, str]], outcomes: list[Outcome]
    ) -> None:
        connection = self._prepared(message)
        rest = list(files[len(outcomes) :])
        try:
            _send(connection, rest)
            for row, _ in rest:
                outcomes.append(self._outcome(connection, row))
        except _Lost as lost:
            self.stop()
            outcomes.append((files[len(outcomes)][0], str(lost)))

    def _prepared(self, message: Message) -> Connection[Any, Any]:
        """The connection to a live process that holds the transform."""
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self.stop()
            self._connection = self._start()
        if self._loaded is not message:
            try:
                self._connection.send_bytes(message.payload)
                _receive(self._connection, _START_S)
            except (_Lost, OSError) as error:
                raise WorkerError("The image worker ended while it loaded a transform.") from error
            self._loaded = message
        return self._connection

    def _start(self) -> Connection[Any, Any]:
        """Start a fresh interpreter rather than `multiprocessing`'s spawn, which would import the
        caller's `__main__` again: seconds of torch for the command line, and a script without a
        main guard would start itself for ever."""
        ours, theirs = Pipe(duplex=True)
        with theirs:
            arguments = [json.dumps([entry or str(Path.cwd()) for entry in sys.path])]
            arguments += [str(theirs.fileno()), str(4 * self._timeout_s)]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                [sys.executable, "-c", _BOOTSTRAP, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
        try:
            _receive(ours, _START_S)
        except _Lost as lost:
            code = self._process.poll()
            raise WorkerError(
                f"An image worker could not start ({lost}, exit code {code})."
            ) from lost
        return ours

    def _outcome(self, connection: Connection[Any, Any], row: int) -> Outcome:
        answer = _receive(connection, self._timeout_s)
        if "reason" in answer:
            reason = answer["reason"]
            return row, reason if reason in OUTCOMES else DIED
        try:
            height, width = (int(n) for n in answer["native"])
            shape = (int(answer["shape"][0]), int(answer["shape"][1]))
            image = _receive_pixels(connection, shape, str(answer["dtype"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _Lost(DIED) from error
        return Decoded(index=row, native_shape=(height, width), image=image)


def _send(connection: Connection[Any, Any], request: list[tuple[int, str]]) -> None:
    try:
        connection.send(request)
    except OSError as error:
        raise _Lost(DIED) from error


def _receive(connection: Connection[Any, Any], timeout_s: float) -> dict[str, Any]:
    """The next JSON answer; raises `WorkerError` if it reports a fault of the program."""
    try:
        # Waiting in slices: a process that was stopped (Ctrl-Z, a sleeping laptop) loses one slice
        # of its patience on waking up, not all of it.
        if not any(connection.poll(timeout_s / 20) for _ in range(20)):
            raise _Lost(HUNG)
        answer = json.loads(connection.recv_bytes(_MAX_HEADER_BYTES))
    except (EOFError, OSError, ValueError) as error:
        raise _Lost(DIED) from error
    if not isinstance(answer, dict):
        raise _Lost(DIED)
    if "failure" in answer:
        raise WorkerError(f"The transform failed in an image worker:\n{answer['failure']}")
    return answer


def _receive_pixels(connection: Connection[Any, Any], shape: tuple[int, int], dtype: str) -> Image:
    if dtype not in ("uint8", "uint16") or not 0 < shape[0] * shape[1] <= 4 * MAX_PIXELS:
        raise _Lost(DIED)
    image: Image = np.empty(shape, np.uint8) if dtype == "uint8" else np.empty(shape, np.uint16)
    try:
        n_bytes = connection.recv_bytes_into(image.data.cast("B"))
    except Exception as error:
        raise _Lost(DIED) from error
    if n_bytes != image.nbytes:
        raise _Lost(DIED)
    return image
