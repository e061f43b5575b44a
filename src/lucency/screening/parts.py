"""Screening of many films in parts, each kept on disk as soon as it is done.

A part that is on disk is whole, so a screening that was killed goes on with the first part that is
missing; no image is lost and none is there twice, however often it is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from lucency.data.guard import FileImages
from lucency.progress import Progress
from lucency.runs import read_json, write_json
from lucency.screening.films import FilmList
from lucency.screening.worker import Job, Part, screen_part

SIZE = 32
"""Images in a part: one batch of the network, and what a kill can cost."""

Rows = range
"""Consecutive rows of a list."""
Run = Callable[[Job, FilmList, Sequence[Rows]], Iterable[Part]]
"""Screens parts of a list, in any order."""


def split(n: int) -> list[Rows]:
    """Rows 0 … n − 1 in consecutive parts."""
    return [range(first, min(first + SIZE, n)) for first in range(0, n, SIZE)]


def here(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
    """One part after the other, in this process; decoding runs ahead in processes of its own."""
    with closing(FileImages(films.paths)) as images:
        for rows in parts:
            yield screen_rows(job, images, films, rows)


def screen_rows(job: Job, images: FileImages, films: FilmList, rows: Rows) -> Part:
    return screen_part(
        job, images, rows, [films.names[r] for r in rows], [films.views[r] for r in rows]
    )


def path_of(folder: Path, first: int) -> Path:
    """Where the part that begins with this row is kept."""
    return folder / f"part-{first:09d}.json"


def screen_parts(
    job: Job, films: FilmList, folder: Path, run: Run = here, *, progress: Progress
) -> None:
    """Screen every part that the folder lacks."""
    parts = split(len(films))
    missing = [rows for rows in parts if not path_of(folder, rows[0]).exists()]
    done = len(films) - sum(len(rows) for rows in missing)
    with progress("Screening", len(films)) as advance:
        advance(done)
        for part in run(job, films, missing):
            write_json(path_of(folder, part.first), part)
            advance(len(part.lines))


def read_parts(folder: Path, n: int) -> Iterator[Part]:
    """Every part of a finished screening of `n` images, in order."""
    for rows in split(n):
        yield read_json(path_of(folder, rows[0]), Part)
