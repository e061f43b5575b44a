"""What a finished folder holds: size and sha256 of every file, and how the files came to be.

The manifest is the commit mark. It is written last, so a folder is finished if, and only if, its
manifest exists and verifies. Its last line, the seal, is a sha256 of its own bytes: that finds
accidents, not a forger, who can compute a new seal.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from lucency.errors import IntegrityError
from lucency.records import Record

MANIFEST = "manifest.json"
LOCK = ".lock"
CHECKPOINT = "checkpoint"
STARTED = "started.json"
SCHEMA: Literal["lucency/manifest/1"] = "lucency/manifest/1"
MARKING = (
    "This folder may hold models and images that were poisoned on purpose, for research on "
    "backdoors: do not use them in care, and do not share them without this file."
)
_CODE = {".py", ".toml", ".j2", ".css"}
_PACKAGES = (
    "lucency",
    "torch",
    "torchvision",
    "monai",
    "lightning-fabric",
    "numpy",
    "scipy",
    "scikit-learn",
    "polars",
    "pillow",
    "pydicom",
    "safetensors",
    "pydantic",
)

RecordType = TypeVar("RecordType", bound=Record)


class FileEntry(Record):
    """One file: its POSIX path from the folder, its size in bytes, the sha256 of its content."""

    path: str
    size: int
    sha256: str


class Manifest(Record):
    """The files of a finished folder, sorted by path, and everything that they depend on.

    digest: of the configuration (see `lucency.runs.digest`).
    device, threads: results are bit-comparable only between equal values of both and of `versions`.
    timings: seconds by stage.
    extra: whatever else the stage wants to keep; not read back by Lucency.
    seal: sha256 of this file's bytes with an empty seal.
    """

    schema_: Literal["lucency/manifest/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    marking: str
    digest: str
    config: dict[str, Any]
    versions: dict[str, str]
    seed: int | None
    device: str | None
    threads: int | None
    timings: dict[str, float]
    extra: dict[str, Any]
    files: tuple[FileEntry, ...]
    seal: str = ""


def versions() -> dict[str, str]:
    """Name -> version of Python, the platform and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return {**found, "lucency code": code_digest(), **_installed()}


@cache
def _installed() -> dict[str, str]:
    """The packages of this process, which do not change under it."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_digest(*parts: str) -> str:
    """First 12 digits of the sha256 of Lucency's own files: a version number does not change with
    every edit, and results may. parts: only files whose path below the package begins so."""
    root = Path(__file__).parent
    content = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in _CODE):
        name = path.relative_to(root).as_posix()
        if not name.startswith(parts or ""):
            continue
        content.update(name.encode() + b"\0")
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:12]


def sha256_of(path: Path) -> str:
    """sha256 of a regular file's content, hex; a link is not followed, a pipe not waited for."""
    with os.fdopen(_open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, kind: type[RecordType]) -> RecordType:
    """Read a `Record` that Lucency wrote; one that is absent, torn or of another kind is refused.

    A flipped digit that leaves valid JSON behind is found by `verify`, not here.
    """
    return _parse(path, _read(path), kind)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`, refused unless its seal fits its bytes."""
    path = folder / MANIFEST
    data = _read(path)
    manifest = _parse(path, data, Manifest)
    if manifest.seal != seal_of(data, manifest.seal):
        raise IntegrityError(
            f"{path} was changed after it was written: its seal does not fit its bytes; "
            "delete the folder and run again."
        )
    return manifest


def seal_of(data: bytes, seal: str) -> str:
    """sha256 of a manifest's bytes, with the last occurrence of its seal taken out."""
    before, _, after = data.rpartition(f'"{seal}"'.encode())
    return hashlib.sha256(before + b'""' + after).hexdigest()


def entries(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """What lies in a folder, sorted: the plain files, and (path, kind) of everything else.

    Paths are POSIX and relative; links are not followed. Left out are the manifest, the lock, and
    the locks of finished folders inside, such as the runs of a sweep.
    """
    files: list[str] = []
    odd: list[tuple[str, str]] = []
    for entry in _walk(folder):
        name = Path(entry.path).relative_to(folder).as_posix()
        if name == MANIFEST or (entry.name == LOCK and _is_a_lock(Path(entry.path), folder)):
            continue
        kind = _kind(entry.stat(follow_symlinks=False).st_mode)
        if not _is_text(name):
            odd.append((repr(os.fsencode(name)), "a file whose name is not valid UTF-8"))
        elif kind is None:
            files.append(name)
        else:
            odd.append((name, kind))
    return sorted(files), sorted(odd)


def describe(folder: Path, names: list[str]) -> tuple[FileEntry, ...]:
    """Size and sha256 of the named files."""
    return tuple(
        FileEntry(path=n, size=(folder / n).stat().st_size, sha256=sha256_of(folder / n))
        for n in names
    )


def verify(folder: Path) -> list[str]:
    """Compare a finished folder with its manifest; an empty list means intact.

    Each difference starts with "changed: ", "missing: " or "extra: " and names the file. A manifest
    that is absent, torn or altered raises `IntegrityError`.
    """
    manifest = read_manifest(folder)
    files, odd = entries(folder)
    listed = {entry.path: entry for entry in manifest.files}
    present, kinds = set(files), dict(odd)
    differences = []
    for name, entry in listed.items():
        if name in kinds:
            differences.append(f"changed: {name} (is now {kinds[name]})")
        elif name not in present:
            differences.append(f"missing: {name}")
        elif reason := _difference(folder / name, entry):
            differences.append(f"changed: {name} ({reason})")
    differences += [f"extra: {name}" for name in files if name not in listed]
    differences += [f"extra: {name} ({kind})" for name, kind in odd if name not in listed]
    return differences


def _difference(path: Path, entry: FileEntry) -> str | None:
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"{size} bytes, was {entry.size}"
        return None if sha256_of(path) == entry.sha256 else "other content of the same size"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                yield entry


def _is_a_lock(path: Path, folder: Path) -> bool:
    return path.parent == folder or os.path.lexists(path.with_name(MANIFEST))


def _kind(mode: int) -> str | None:
    """What an entry is, in words; None for a plain file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_regular(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "not a plain file")
    return fd


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(_open_regular(path), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{path} does not exist: the run that should have written it is not finished; "
            "run it again."
        ) from error
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read ({error.strerror}); restore it, or delete its folder and run "
            "again."
        ) from error


def _parse(path: Path, data: bytes, kind: type[RecordType]) -> RecordType:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        raise IntegrityError(
            f"{path} is torn, altered, or of another version: expected {kind.__name__}, but "
            f"{where}: {first['msg']}; delete its folder and run again."
        ) from error
