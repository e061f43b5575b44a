"""One pass over the films of a data set, in parts that are kept on disk as soon as they are done.

A part that is on disk is whole, so a scan that was killed goes on with the first part that is
missing. No more than a part is in memory, however large the data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from lucency.detect.datasets.pixels import Pixels, gather, look
from lucency.progress import Progress, silent
from lucency.records import Decoded, Radiographs, Rejected
from lucency.runs import write_via

SIZE = 512
"""Films in a part."""

Rows = range
"""Consecutive rows of a data set."""


@dataclass(frozen=True)
class Part:
    """Films of consecutive rows, the first of which is `first`; and those that could not be
    read."""

    first: int
    pixels: Pixels
    rejected: tuple[Rejected, ...]


Run = Callable[[Radiographs, Sequence[Rows]], Iterable[Part]]
"""Reads parts of a data set, in any order."""


def split(n: int) -> list[Rows]:
    """Rows 0 … n − 1 in consecutive parts."""
    return [range(first, min(first + SIZE, n)) for first in range(0, n, SIZE)]


def here(radiographs: Radiographs, parts: Sequence[Rows]) -> Iterator[Part]:
    """One part after the other; decoding runs ahead in processes of its own."""
    for rows in parts:
        yield read_part(radiographs, rows)


def read_part(radiographs: Radiographs, rows: Rows) -> Part:
    films, rejected = [], []
    for item in radiographs.images.read(rows, look):
        if isinstance(item, Decoded):
            films.append(item)
        else:
            row, reason = item
            rejected.append(Rejected(image=radiographs.image_ids[row], reason=reason))
    return Part(rows[0], gather(films), tuple(rejected))


def read_parts(
    radiographs: Radiographs, folder: Path, run: Run = here, *, progress: Progress = silent
) -> None:
    """Read every part that the folder lacks."""
    parts = split(len(radiographs))
    missing = [rows for rows in parts if not path_of(folder, rows[0]).exists()]
    with progress("Looking at every film", len(radiographs)) as advance:
        advance(len(radiographs) - sum(len(rows) for rows in missing))
        for part in run(radiographs, missing):
            keep(folder, part)
            advance(len(part.pixels.rows) + len(part.rejected))


def path_of(folder: Path, first: int) -> Path:
    """Where the part that begins with this row is kept."""
    return folder / f"part-{first:09d}.safetensors"


def keep(folder: Path, part: Part) -> None:
    arrays = {f.name: np.ascontiguousarray(getattr(part.pixels, f.name)) for f in fields(Pixels)}
    rejected = json.dumps([each.model_dump() for each in part.rejected])
    write_via(
        path_of(folder, part.first),
        lambda path: save_file(arrays, path, metadata={"rejected": rejected}),
    )


def kept(folder: Path, n: int) -> Iterator[Part]:
    """Every part of a data set of `n` films that was read, in order."""
    for rows in split(n):
        with safe_open(path_of(folder, rows[0]), "numpy") as file:
            pixels = Pixels(**{f.name: file.get_tensor(f.name) for f in fields(Pixels)})
            rejected = json.loads(file.metadata()["rejected"])
        yield Part(rows[0], pixels, tuple(Rejected(**each) for each in rejected))
