"""Write files so that one that exists is whole.

A temp file beside the target is opened O_EXCL, filled, fsynced and moved over the target; then the
folder is fsynced. Accepted in exchange: a target that is a link or a device is refused, a replaced
file gets the permissions of a new one, and a write needs room for the old and the new content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lucency.errors import CannotWrite, LucencyError
from lucency.records import Record

TEMP_PREFIX = ".lucency-temp-"


def write_via(path: Path, writer: Callable[[Path], None]) -> None:
    """Write a file atomically through a function that fills the path it is given.

    Example: ``write_via(path, table.write_parquet)``. Whatever goes wrong, `path` keeps its old
    content, the temp file is removed, and `CannotWrite` names `path` and the cause.
    """
    temp = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(8)}{path.suffix[:16]}")
    with naming(path), _removing(temp):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_special(path)
        os.close(os.open(temp, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE(temp.stat().st_mode)
        writer(temp)
        # A library may have put a file of its own, readable by its owner alone, in its place.
        temp.chmod(mode)
        _sync(temp)
        temp.replace(path)
        _sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    write_via(path, lambda temp: _fill(temp, data))


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8 and with line ends as they are."""
    with naming(path):
        data = text.encode()
    write_bytes(path, data)


def write_json(path: Path, value: Record | Mapping[str, Any]) -> None:
    """Write a record or mapping atomically as JSON: field order kept, NaN and infinity refused."""
    with naming(path):
        data = to_json(value)
    write_bytes(path, data)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a configuration, 64 hex digits; the first 12 name its run.

    Equal values give equal digests whatever the order of their mappings. Sets have no order: they
    are refused, use tuples.

    >>> digest({"seed": 1, "rate": 0.5}) == digest({"rate": 0.5, "seed": 1})
    True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(value: Record | Mapping[str, Any]) -> bytes:
    text = json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def plain(value: Any) -> Any:
    """`value` as JSON knows it, records at any depth included."""
    if isinstance(value, Record):
        _refuse_sets(value.model_dump())
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _refuse_sets(value: Any) -> None:
    if isinstance(value, set | frozenset):
        raise TypeError("a set has no order, so its JSON would differ from run to run: use a tuple")
    items = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple):
        for item in items:
            _refuse_sets(item)


def _fill(temp: Path, data: bytes) -> None:
    fd = os.open(temp, os.O_WRONLY)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems cannot sync a folder; the file itself must be synced.
        if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise
    finally:
        os.close(fd)


def _refuse_special(path: Path) -> None:
    """Refuse to replace anything but a plain file: `--out /dev/null` must not delete a device."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a link, pipe or device"
            raise OSError(0, f"it exists and is {kind}, not a plain file")


@contextlib.contextmanager
def _removing(temp: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise


_ADVICE = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn any failure into `CannotWrite` with the path and the cause.

    Libraries that write files raise errors of their own for a full disk, hence not only `OSError`.
    """
    try:
        yield
    except LucencyError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        advice = "correct the cause and run again"
        if isinstance(error, OSError):
            cause = error.strerror or str(error)
            advice = _ADVICE.get(error.errno or 0, "choose another place and run again")
        raise CannotWrite(f"cannot write {path}: {cause}; {advice}.") from error
