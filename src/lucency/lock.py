"""One process a folder: the kernel's lock on `.lock`, which holds the owner's number and host.

The lock dies with its owner, so a killed process owns nothing; what it wrote stays readable.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from pathlib import Path

from lucency.errors import CannotWrite
from lucency.manifest import LOCK

WAIT_S = 1.0
_MARK = b"lucency "
_HELD: set[int] = set()


def _forget_locks() -> None:
    """In a forked child: close the copies, or an orphan would keep a dead owner's lock."""
    for fd in _HELD:
        with contextlib.suppress(OSError):
            os.close(fd)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_locks)


def acquire(folder: Path) -> int:
    """A descriptor that holds the lock; waits a moment for an owner who is about to name itself."""
    deadline = time.monotonic() + WAIT_S
    while True:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(folder / LOCK, fd):
                _sign(fd, f"{os.getpid()} {socket.gethostname()}")
                _HELD.add(fd)
                return fd
            if time.monotonic() > deadline:
                raise OSError(0, f"its {LOCK} keeps being replaced")
        except BlockingIOError:
            owner = os.pread(fd, 256, 0)
            if _lives(owner) or time.monotonic() > deadline:
                os.close(fd)
                raise _in_use(folder, owner) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        time.sleep(0.02)


def release(fd: int) -> None:
    """Give the lock up; nothing happens in a forked child, where `fd` may be another file."""
    if fd in _HELD:
        _HELD.discard(fd)
        try:
            with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
                _sign(fd, "free")
        finally:
            os.close(fd)


def is_marked(folder: Path) -> bool:
    """Whether Lucency has owned this folder before."""
    path = folder / LOCK
    return path.is_file() and path.read_bytes().startswith(_MARK)


def _is_still(path: Path, fd: int) -> bool:
    """Whether the file we locked is the one at `path`: its folder may have been deleted."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return False


def _sign(fd: int, owner: str) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, _MARK + f"{owner}\n".encode(), 0)


def _signature(content: bytes) -> tuple[int, str] | None:
    """(pid, host) of an owner."""
    found = re.fullmatch(rb"lucency (\d{1,9}) (\S*)\n", content)
    return (int(found[1]), found[2].decode("ascii", "replace")) if found else None


def _lives(content: bytes) -> bool:
    """Whether the named owner can be the holder: an owner killed earlier leaves its name behind."""
    owner = _signature(content)
    if owner is None:
        return False
    if owner[1] != socket.gethostname():
        return True
    try:
        os.kill(owner[0], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(folder: Path, content: bytes) -> CannotWrite:
    owner = _signature(content)
    who = f"process {owner[0]} on {owner[1]}" if owner else "another process"
    return CannotWrite(
        f"{folder} is in use by {who}; wait until it ends, stop it, or choose another folder."
    )
