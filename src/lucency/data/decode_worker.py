"""The process that decodes: reads files as it is told, and can be killed at any moment.

Started by `data.guard`. What it sends back is a JSON header and raw pixels, never a pickle: it has
touched hostile bytes, so nobody should have to trust its answers. Imports as little as `decode`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lucency.data.decode import DecodeError, decode

MEMORY_BYTES = 1536 * 2**20
"""Address space that the decoding of one file may add to what the process has already."""

NOTHING = np.zeros((0, 0), dtype=np.uint8)
"""What a transform gets for an empty path: it draws the image itself (a synthetic source)."""

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_Transform = Callable[[Pixels, int], Pixels]


def serve(descriptor: int, cpu_limit_s: float) -> None:
    """Answer requests on the socket until it closes.

    A request is a transform, answered once, or a list of (row, path), answered one by one.
    cpu_limit_s: processor seconds per file after which the kernel ends this process; it is the
        last resort against an endless loop whose parent was killed and cannot watch any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold patient images
    connection = Connection(descriptor)
    transform: _Transform | None = None
    connection.send_bytes(b"{}")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        except Exception:  # noqa: BLE001 - the transform cannot be imported here: the parent raises
            _send_failure(connection)
            continue
        if not isinstance(request, list):
            transform = request
            connection.send_bytes(b"{}")
            continue
        for row, path in request:
            signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
            _answer(connection, row, path, transform)


def _answer(connection: Connection, row: int, path: str, transform: _Transform | None) -> None:
    try:
        with _limited_memory():
            stored = decode(path) if path else NOTHING
    except DecodeError as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(json.dumps({"reason": error.reason}).encode())
        return
    try:
        image = _checked(stored if transform is None else transform(stored, row))
    except Exception:  # noqa: BLE001 - any fault of the transform is reported to the parent
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send_failure(connection)
        return
    signal.setitimer(signal.ITIMER_PROF, 0)
    header = {"native": stored.shape, "shape": image.shape, "dtype": str(image.dtype)}
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(image.data.cast("B"))


def _checked(image: Pixels) -> Pixels:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"A transform must return an array, but returned {type(image)}.")
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise TypeError(
            f"A transform must return a non-empty (h, w) uint8 or uint16, but returned "
            f"{image.shape} {image.dtype}."
        )
    return image if image.flags.c_contiguous else image.copy(order="C")


def _send_failure(connection: Connection) -> None:
    connection.send_bytes(json.dumps({"failure": traceback.format_exc()}).encode())


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Limit what decoding may allocate; the transform is ours and may import what it needs."""
    used = _address_space()
    if used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + MEMORY_BYTES
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int | None:
    """Bytes of address space in use; None where the system does not say (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
