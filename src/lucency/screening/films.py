"""Which films: the suspects that were named, and the clean reference set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lucency.data.tables import inner_path, read_table
from lucency.errors import DataError
from lucency.records import IntArray

SUFFIXES = (".png", ".jpg", ".jpeg")
TABLE = "labels.csv"


@dataclass(frozen=True)
class FilmList:
    """N files. names: of the file, or relative to the folder that was given; whole paths where that
    would give one name to two files. patients: a name each, None where nobody said. views: such as
    "PA", None where nobody said."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    patients: tuple[str | None, ...]
    views: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: IntArray) -> FilmList:
        columns = (self.paths, self.names, self.patients, self.views)
        return FilmList(*(tuple(column[row] for row in rows) for column in columns))

    def owners(self) -> list[str]:
        """A patient a film; a film of which nobody said whose it is counts as a patient's own."""
        return [
            f"patient {name}" if name else f"film {row}" for row, name in enumerate(self.patients)
        ]


def list_films(places: Sequence[Path]) -> FilmList:
    """Files as they are, and the images of folders: those of `labels.csv` where there is one (its
    columns `image`, and if there `patient_id` and `view`), else every PNG and JPEG below, by name.

    Nothing is opened but tables. Raises DataError for a place that does not exist, a folder without
    images, or a table that cannot be used.
    """
    parts = [_folder(place) if place.is_dir() else _file(place) for place in places]
    paths = tuple(p for part in parts for p in part.paths)
    names = tuple(n for part in parts for n in part.names)
    films = FilmList(
        paths,
        # Two folders may hold files of the same name, and an answer must say which it means.
        names if len(set(names)) == len(names) else tuple(path.as_posix() for path in paths),
        tuple(p for part in parts for p in part.patients),
        tuple(v for part in parts for v in part.views),
    )
    if not films.paths:
        raise DataError("At least one image was expected, got none; name files or folders.")
    return films


def _file(path: Path) -> FilmList:
    if not os.path.lexists(path):
        raise DataError(f"An image or a folder was expected at {path.name!r}; there is none.")
    return FilmList((path,), (path.name,), (None,), (None,))


def _folder(folder: Path) -> FilmList:
    if (folder / TABLE).exists():
        return _from_table(folder)
    found = sorted(
        Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )
    if not found:
        raise DataError(
            f"The folder {folder.name!r} must hold PNG or JPEG images, or a {TABLE}; it has none."
        )
    names = tuple(path.relative_to(folder).as_posix() for path in found)
    nobody = (None,) * len(found)
    return FilmList(tuple(found), names, nobody, nobody)


def _from_table(folder: Path) -> FilmList:
    table = read_table(folder / TABLE)
    at = table.column("image", "It holds each image's path inside the folder.")
    names = tuple(inner_path(cells[at], f"{table.name}, line {line}") for line, cells in table.rows)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{table.name}: image {twice!r} is there twice; keep one row of it.")
    return FilmList(
        tuple(folder / name for name in names),
        names,
        _optional(table.header, table.rows, "patient_id"),
        _optional(table.header, table.rows, "view"),
    )


def _optional(
    header: Sequence[str], rows: Sequence[tuple[int, list[str]]], title: str
) -> tuple[str | None, ...]:
    if title not in header:
        return (None,) * len(rows)
    at = header.index(title)
    return tuple(cells[at] or None for _, cells in rows)
