"""Arrays in a .npz file from a stranger: sizes are known and bounded before anything is read."""

from __future__ import annotations

import math
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError

MAX_BYTES = 8 * 2**30
"""Most that all arrays of a file may occupy in memory."""
MAX_RATIO = 200
"""Most that a large array may expand; images expand two- to fivefold, a bomb a thousandfold."""
_SMALL_BYTES = 16 * 2**20
_MAX_ARRAYS = 1000


@dataclass(frozen=True)
class ArrayHeader:
    """What an array says about itself, unread."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Npz:
    """An open .npz file. headers: of every array, by name."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive = archive
        self._name = name
        self.headers = _checked_headers(archive, name)

    def read(self, key: str) -> npt.NDArray[Any]:
        """One array; raises `DataError` if it is damaged."""
        try:
            with self._archive.open(f"{key}.npy") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise DataError(f"{self._name}: array '{key}' is damaged ({_kind(error)}).") from error


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open a .npz file and check every header.

    Raises `DataError` if it is no regular file, no archive of arrays, holds Python objects, claims
    more than 8 GiB, or expands like a bomb.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path.name} must be a regular file, but is a pipe, device or folder.")
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path.name} is absent; path must be an .npz file.") from None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path.name} is not an .npz file ({_kind(error)}).") from None
    with archive:
        yield Npz(archive, path.name)


def _checked_headers(archive: zipfile.ZipFile, name: str) -> dict[str, ArrayHeader]:
    members = archive.infolist()
    if len(members) > _MAX_ARRAYS:
        raise DataError(f"{name} holds {len(members)} files; at most {_MAX_ARRAYS} are expected.")
    headers: dict[str, ArrayHeader] = {}
    for member in members:
        key = member.filename.removesuffix(".npy")
        if key in headers or key == member.filename:
            raise DataError(f"{name}: {member.filename!r} is there twice or is not an array.")
        headers[key] = _header(archive, member, name)
        _check_size(headers[key], member, name)
    total = sum(header.n_bytes for header in headers.values())
    if total > MAX_BYTES:
        raise DataError(
            f"{name}: its arrays need {total / 2**30:.1f} GiB of memory, but at most "
            f"{MAX_BYTES / 2**30:.0f} GiB are read; use a smaller version of the data set."
        )
    return headers


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> ArrayHeader:
    try:
        with archive.open(member) as file:
            shape, dtype = _read_header(file)
    except Exception as error:
        raise DataError(
            f"{name}: {member.filename!r} has no readable array header ({_kind(error)})."
        ) from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise DataError(f"{name}: {member.filename!r} must hold numbers, but holds {dtype}.")
    if any(n < 0 for n in shape):
        raise DataError(f"{name}: {member.filename!r} has the impossible shape {shape}.")
    return ArrayHeader(shape, dtype)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _check_size(header: ArrayHeader, member: zipfile.ZipInfo, name: str) -> None:
    large = header.n_bytes > _SMALL_BYTES
    if large and header.n_bytes > MAX_RATIO * max(member.compress_size, 1):
        raise DataError(
            f"{name}: {member.filename!r} expands from {member.compress_size} to {header.n_bytes} "
            f"bytes, more than {MAX_RATIO}-fold; this is no set of images."
        )


def _kind(error: Exception) -> str:
    return type(error).__name__
