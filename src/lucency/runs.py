"""The folder of one run: who owns it, when it is finished, and what is left after a crash.

A file that exists in it is whole (see `lucency.writing`), so a stage may be skipped because its
file exists, once `is_spoilt` said no.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lucency import lock
from lucency.errors import CannotWrite, IntegrityError
from lucency.manifest import (
    CHECKPOINT,
    LOCK,
    MANIFEST,
    MARKING,
    STARTED,
    Manifest,
    describe,
    entries,
    read_json,
    read_manifest,
    seal_of,
    sha256_of,
    verify,
    versions,
)
from lucency.records import Record
from lucency.writing import (
    TEMP_PREFIX,
    digest,
    naming,
    plain,
    to_json,
    write_bytes,
    write_json,
    write_text,
    write_via,
)

__all__ = [
    "RunFolder",
    "digest",
    "read_json",
    "read_manifest",
    "sha256_of",
    "verify",
    "write_bytes",
    "write_json",
    "write_text",
    "write_via",
]


class RunFolder:
    """A folder that one process owns while it is open; use it in a ``with`` block.

    The owner is whoever holds the kernel's lock on `.lock`, so a killed process owns nothing.
    Forked children do not keep the lock. On opening, temp files of a killed owner are removed.

    Example::

        with RunFolder.open(out, "densenet patch", digest(config)) as run:
            if not run.finished():
                write_json(run.path("metrics.json"), metrics)
                run.finish(config=config, seed=config.seed)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock.acquire(folder)
        try:
            with naming(folder):
                _remove_temps(folder)
        except CannotWrite:
            self.close()
            raise

    @classmethod
    def open(cls, root: Path, name: str, digest: str) -> RunFolder:
        """Own `root/<slug of name>-<first 12 digits of digest>`, made if it does not exist."""
        slug = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")[:48] or "run"
        return cls(root / f"{slug}-{digest[:12]}")

    @classmethod
    def at(cls, folder: Path) -> RunFolder:
        """Own the very folder that a user named, which must be new, empty, or Lucency's."""
        with naming(folder):
            if folder.exists() and not _is_ours(folder):
                raise OSError(0, "it holds files that are not Lucency's; name a new folder")
        return cls(folder)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder up; the files stay."""
        lock.release(self._lock)

    def path(self, name: str) -> Path:
        """The place of a file in this folder, its parents need not exist; no way leads outside."""
        path = self.folder / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise CannotWrite(
                f"a file name inside {self.folder} must be relative and free of '..', "
                f"got {name!r}; choose another name."
            )
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise CannotWrite(
                f"{path} leads outside the run folder through a link; remove the link."
            )
        return path

    @property
    def checkpoint(self) -> Path:
        """The sub-folder for what a resumed run needs and a finished one does not."""
        return self.folder / CHECKPOINT

    def finished(self) -> bool:
        """Whether the manifest exists and verifies.

        A run killed between its manifest and the removal of its checkpoints is finished: the
        removal is completed here.
        """
        try:
            differences = verify(self.folder)
        except IntegrityError:
            return False
        if any(not line.startswith(f"extra: {CHECKPOINT}/") for line in differences):
            return False
        self._remove_checkpoint()
        return True

    def is_spoilt(self) -> bool:
        """Whether the run was finished once and does not verify any more: `clear` it."""
        return os.path.lexists(self.folder / MANIFEST) and not self.finished()

    def begin(self, identity: str) -> None:
        """Keep what the checkpoint holds of the same work, named by a digest; of other work, and of
        one that was finished and then spoilt, nothing in the folder."""
        marker = self.checkpoint / STARTED
        text = f'{{"identity": "{identity}"}}\n'
        if marker.exists() and marker.read_text(encoding="utf-8") == text and not self.is_spoilt():
            return
        self.clear()
        write_text(marker, text)

    def clear(self, keep: Collection[str] = ()) -> None:
        """Delete all but the lock and the entries named by `keep`, the manifest first."""
        with naming(self.folder):
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for entry in sorted(self.folder.iterdir()):
                if entry.name not in (LOCK, *keep):
                    _delete(entry)

    def finish(
        self,
        *,
        config: Record | Mapping[str, Any] | None = None,
        seed: int | None = None,
        device: str | None = None,
        threads: int | None = None,
        timings: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write the manifest of all files, then delete the checkpoints, which it leaves out.

        config: its digest is stored with it; timings: seconds by stage.
        """
        path = self.folder / MANIFEST
        with naming(path):
            manifest = Manifest(
                name=self.folder.name,
                marking=MARKING,
                digest=digest(config or {}),
                config=plain(config or {}),
                versions=versions(),
                seed=seed,
                device=device,
                threads=threads,
                timings=dict(timings or {}),
                extra=plain(extra or {}),
                files=describe(self.folder, self._files()),
            )
            manifest = manifest.model_copy(update={"seal": seal_of(to_json(manifest), "")})
        write_json(path, manifest)
        self._remove_checkpoint()
        return manifest

    def _files(self) -> list[str]:
        files, odd = entries(self.folder)
        kept = [(name, kind) for name, kind in odd if not name.startswith(f"{CHECKPOINT}/")]
        if kept:
            name, kind = kept[0]
            raise OSError(0, f"{name} is {kind}, and a run folder holds plain files only")
        return [name for name in files if not name.startswith(f"{CHECKPOINT}/")]

    def _remove_checkpoint(self) -> None:
        with naming(self.checkpoint):
            _delete(self.checkpoint)


def _delete(path: Path) -> None:
    """Delete a file or a folder, not what a link points to; fine if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_temps(folder: Path) -> None:
    for name in entries(folder)[0]:
        if Path(name).name.startswith(TEMP_PREFIX):
            (folder / name).unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    others = {entry.name for entry in folder.iterdir()} - {LOCK}
    if not others or lock.is_marked(folder):
        return True
    with contextlib.suppress(IntegrityError):
        return bool(read_manifest(folder).schema_)
    return False
