"""CSV tables from a stranger: read as text, with the line number of every row."""

from __future__ import annotations

import csv
import difflib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from lucency.errors import DataError
from lucency.records import FloatArray, Split

MAX_COLUMNS = 10_000
MAX_BYTES = 2**30

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters but the tab, line separators, and what reverses the reading direction."""


def _distinct(findings: tuple[str, ...]) -> tuple[str, ...]:
    if not findings or len(set(findings)) < len(findings):
        raise ValueError("findings must name at least one label column, each once")
    return findings


FindingNames = Annotated[tuple[str, ...], AfterValidator(_distinct)]
"""The label columns that a source is to use: at least one, each once."""


class Entries(NamedTuple):
    """What a table of labels says of N images. labels (N, K) in {1, 0, NaN}."""

    images: tuple[str, ...]
    patients: tuple[str, ...]
    findings: tuple[str, ...]
    labels: FloatArray
    splits: tuple[Split | None, ...]
    views: tuple[str | None, ...]


@dataclass(frozen=True)
class Table:
    """A table of text: every cell stripped, empty lines left out.

    name: the file's name, for messages. rows: (line number, cells), the header not among them.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, list[str]], ...]

    def column(self, title: str, why: str = "") -> int:
        """Where a column is; raises `DataError` with what there is instead. why: a sentence."""
        if title in self.header:
            return self.header.index(title)
        raise DataError(
            f"Column '{title}' is absent from {self.name}; it has: {_some(self.header)}"
            f"{nearest(title, self.header)}.{' ' + why if why else ''}"
        )


def read_table(path: Path) -> Table:
    """Read a CSV file (UTF-8, with or without a byte order mark).

    Raises `DataError`, with the line, if it is missing, no regular file, larger than 1 GiB, not
    UTF-8, or has over 10,000 columns, control characters, or rows unlike the header.
    """
    _check_regular(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(cell.strip() for cell in next(reader, []))
            _check_header(path.name, header)
            rows = tuple(
                (reader.line_num, _cells(path.name, reader.line_num, row, header))
                for row in reader
                if row
            )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text ({error.reason}); save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: not a CSV row ({error}).") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from None
    return Table(path.name, header, rows)


def read_lines(path: Path) -> tuple[tuple[int, str], ...]:
    """Read a text file of one name a line as (line number, name), empty lines left out."""
    _check_regular(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(
            f"{path.name} is not UTF-8 text; one image name a line is expected."
        ) from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from None
    return tuple((n, line.strip()) for n, line in enumerate(lines, 1) if line.strip())


def inner_path(cell: str, where: str) -> str:
    """A relative path in its one spelling ("a/b.png"); `DataError` if it leaves its folder."""
    parts = cell.replace("\\", "/").split("/")
    if not cell or cell.startswith(("/", "\\", "~")) or ".." in parts or parts[0].endswith(":"):
        raise DataError(
            f"{where}: the image must be a path inside the data set's folder, but is "
            f"{shown(cell)}; write it relative to that folder, without '..'."
        )
    return str(PurePosixPath(cell))


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; nearest: …" for a message, or nothing where no word is close."""
    close = difflib.get_close_matches(word, list(words)[:1000], n=1)
    return f"; nearest: {close[0]}" if close else ""


def shown(text: str) -> str:
    """Foreign text for a message: quoted, short, control characters escaped."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


class Listing:
    """Which files exist, with one look into each folder rather than one at each file."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def has(self, path: Path) -> bool:
        names = self._names.get(path.parent)
        if names is None:
            names = self._names[path.parent] = names_in(path.parent)
        return path.name in names


def names_in(folder: Path) -> frozenset[str]:
    """Names of all entries of a folder; none if it is absent or may not be read."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (OSError, ValueError):
        return frozenset()


def _check_regular(path: Path) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        raise DataError(
            f"{path.name} is expected in {shown(str(path.parent))}, but is absent."
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path.name} must be a regular file, but is a pipe, device or folder.")
    if status.st_size > MAX_BYTES:
        raise DataError(f"{path.name} must be at most 1 GiB, but has {status.st_size} bytes.")


def _check_header(name: str, header: Sequence[str]) -> None:
    if not any(header):
        raise DataError(f"{name}, line 1: a header is expected, but the table is empty.")
    if len(header) > MAX_COLUMNS:
        raise DataError(
            f"{name}, line 1: at most {MAX_COLUMNS} columns are expected, but it has {len(header)}."
        )
    _check_text(name, 1, header)
    titles = [title for title in header if title]
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise DataError(f"{name}, line 1: column {shown(twice)} is there twice; rename one.")


def _cells(name: str, line: int, row: list[str], header: Sequence[str]) -> list[str]:
    if len(row) > len(header) and not any(row[len(header) :]):
        row = row[: len(header)]  # spreadsheets leave commas behind
    if len(row) != len(header):
        raise DataError(
            f"{name}, line {line}: {len(header)} cells are expected, as in the header, but it has "
            f"{len(row)}; quote cells that contain commas."
        )
    _check_text(name, line, row)
    return [cell.strip() for cell in row]


def _check_text(name: str, line: int, cells: Iterable[str]) -> None:
    bad = _CONTROL.search("".join(cells))
    if bad:
        raise DataError(
            f"{name}, line {line}: a cell has the control character {bad.group()!r}; remove it."
        )


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:20]) + (f", … ({len(words)} in all)" if len(words) > 20 else "")
