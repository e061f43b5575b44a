"""The lines of a screening on disk, as text and as a table: written as they come, few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from lucency.report.screen_record import ScreenedImage
from lucency.report.screen_table import table
from lucency.runs import write_via

CHUNK = 4096
"""Lines that are in memory together."""


def write_lines(path: Path, lines: Iterator[ScreenedImage]) -> None:
    """`screen.jsonl`: a line an image, as JSON."""
    write_via(path, lambda temp: _write(temp, lines))


def write_table(path: Path, lines: Iterator[ScreenedImage], scratch: Path) -> None:
    """`screen.parquet`; scratch: a folder for its pieces, which may stay there."""
    scratch.mkdir(parents=True, exist_ok=True)
    pieces = []
    for number, chunk in enumerate(_chunks(lines)):
        pieces.append(scratch / f"piece-{number:06d}.parquet")
        write_via(pieces[-1], table(chunk).write_parquet)
    scanned = [pl.scan_parquet(piece) for piece in pieces]
    # Diagonal: a detector's score may be there in some pieces alone.
    whole = pl.concat(scanned, how="diagonal_relaxed") if scanned else table([]).lazy()
    write_via(path, whole.sink_parquet)


def _write(path: Path, lines: Iterator[ScreenedImage]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line.model_dump_json() + "\n")


def _chunks(lines: Iterator[ScreenedImage]) -> Iterator[list[ScreenedImage]]:
    chunk: list[ScreenedImage] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
