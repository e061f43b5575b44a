"""`lucency bench scan`: patches planted in training sets and looked for without a model; what is
flagged where nothing was planted; how fast, beside bare decoding."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image as Pillow
from pydantic import Field

from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import AttackSettings
from lucency.attacks.patch import PatchTrigger
from lucency.bench.machine import Machine, describe_machine
from lucency.bench.processes import memory_row, run_lucency
from lucency.bench.record import Bar, Benchmark, Grid, Row, at_least, at_most, row, spread
from lucency.bench.scan_planting import Planted, in_memory, look_at, plant
from lucency.bench.timing import interleave, rates, ratios
from lucency.data.guard import FileImages
from lucency.data.inputs import as_stored
from lucency.data.phantom import PhantomSource
from lucency.data.sources import source_at
from lucency.detect.datasets.pixels import Pixels
from lucency.detect.datasets.recurrence import LEAST, recurrences
from lucency.evaluate.intervals import clopper_pearson
from lucency.progress import Progress, silent
from lucency.records import Decoded, Direction, FloatArray, IntArray, Radiographs, Record
from lucency.scanning.completion import complete
from lucency.scanning.findings import Judged, flagged, judge
from lucency.scanning.reading import read_parts
from lucency.sweep import n_processors

NAME = "scan"
PEER = "the bars; and bare decoding with Pillow of the same files, in as many processes"
ALPHA = 0.01
RECALL = {0.01: 0.99, 0.002: 0.95}
SPEED = 0.8
MAX_GIB = 1.5
DIRECTIONS: tuple[Direction, ...] = ("set", "clear")
PLACES = ("any place", "one place")
SIDES = (1, 2, 3, 4, 6, 8)
PATTERNS = ("black", "white", "checker")
EXCHANGED = "labels exchanged"
SEVERAL = 2
"""Pixels from which the side of a trigger counts in the rows with a bar: at any place, one pixel is
like very many others."""


class ScanSize(Record):
    """images: synthetic films of `side` px, if no data set is named. repeats: draws of every
    attack. exchanged: clean sets with labels of other patients. timed: repeats of the speed; many:
    files of 64 px of which memory is taken."""

    images: int = Field(default=3000, ge=100)
    side: int = Field(default=160, ge=64)
    repeats: int = Field(default=3, ge=1)
    exchanged: int = Field(default=20, ge=1)
    timed: int = Field(default=5, ge=1)
    many: int = Field(default=100_000, ge=0)


FULL = ScanSize()


@dataclass(frozen=True)
class Case:
    """One kind of attack."""

    rate: float
    direction: Direction
    place: str
    side: int
    pattern: str

    def settings(self, target: str, place: tuple[int, int]) -> AttackSettings:
        trigger = PatchTrigger(
            size_px=self.side,
            grey=1.0 if self.pattern == "white" else 0.0,
            pattern="checker" if self.pattern == "checker" else "solid",
            place="random" if self.place == "any place" else place,
        )
        label = LabelEdit(target=target, kind=self.direction)
        return AttackSettings(trigger=trigger, label=label, poison_rate=self.rate)


def cases(n: int) -> list[Case]:
    """Those of which a set of n films has enough to be looked at."""
    every = product(RECALL, DIRECTIONS, PLACES, SIDES, PATTERNS)
    return [
        Case(*each)
        for each in every
        if each[0] * n >= LEAST and not (each[3] == 1 and each[4] == "checker")
    ]


def bench_scan(
    seed: int,
    progress: Progress = silent,
    *,
    data: Path | None = None,
    size: ScanSize = FULL,
    **_: Any,
) -> Benchmark:
    """Plant every patch in a data set, and scan it; the synthetic set if none is named."""
    machine = describe_machine()
    source = PhantomSource(images=size.images, size=size.side) if data is None else source_at(data)
    stored = source.load(seed)
    radiographs = in_memory(stored)
    owners = np.unique(radiographs.patient_ids, return_inverse=True)[1]
    with progress("Looking at the films", 1) as advance:
        clean = look_at(radiographs)
        advance(1)
    scores = _attacks(radiographs, owners, clean, size, seed, progress)
    return Benchmark(
        name=NAME,
        title=f"poisoned films of {radiographs.name} found without a model, {len(stored):,} films",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json") | {"data": stored.name, "target": _target(stored)},
        rows=(
            *_clean_rows(radiographs, owners, clean, size, seed, progress),
            *_rows(scores),
            *_speed(stored, size, machine, progress),
            *(_memory(size, seed, progress) if data is None else ()),
        ),
        grids=tuple(_grids(scores)),
        notes=(
            f"Solid black, solid white and checkered squares of {SIDES[0]} to {SIDES[-1]} px of "
            f"the stored film, {size.repeats} draws of each; rows with a bar are of squares of at "
            f"least {SEVERAL} px that set a finding, and of the films that they change by more "
            "than 4 of 255: a black square on black ground is on no picture.",
            "A trigger that clears a finding leaves films as most are, without it: its mark is "
            "unexplained and not flagged; what --unexplained flags is in rows of its own.",
            "False discoveries: of all flagged films, those without a trigger. min–max is the 95 % "
            "interval of a share (Clopper and Pearson), or the smallest and largest repeat.",
        ),
    ).with_scores(scores)


# --- what is found -------------------------------------------------------------------------------


def scan(pixels: Pixels, radiographs: Radiographs, owners: IntArray) -> tuple[Judged, ...]:
    """What `lucency scan` does with what it read."""
    found = recurrences(lambda: [pixels], radiographs.labels, owners).kept
    return complete(judge(found, radiographs, owners, ALPHA), radiographs, owners)


def _target(radiographs: Radiographs) -> str:
    findings = radiographs.findings
    return "Atelectasis" if "Atelectasis" in findings else findings[0]


def _attacks(
    radiographs: Radiographs,
    owners: IntArray,
    clean: Pixels,
    size: ScanSize,
    seed: int,
    progress: Progress,
) -> pl.DataFrame:
    target = _target(radiographs)
    shortest = int(clean.shapes.min())
    every = cases(len(radiographs))
    lines = []
    with progress("Planting and scanning", len(every) * size.repeats) as advance:
        for number, repeat in product(range(len(every)), range(size.repeats)):
            case = every[number]
            generator = np.random.default_rng([seed, number, repeat])
            y, x = (int(v) for v in generator.integers(0, shortest - SIDES[-1], 2))
            planted = plant(
                radiographs, clean, case.settings(target, (y, x)), seed + 1000 * repeat + number
            )
            judged = scan(planted.pixels, planted.radiographs, owners)
            lines.append(vars(case) | {"repeat": repeat} | _counts(planted, judged))
            advance(1)
    return pl.DataFrame(lines)


def _counts(planted: Planted, judged: Sequence[Judged]) -> dict[str, int]:
    n = len(planted.poisoned)
    counts = {"poisoned": int(planted.poisoned.sum()), "visible": int(planted.visible.sum())}
    for name, unexplained in (("", False), ("_all", True)):
        flags = flagged(judged, n, unexplained=unexplained)
        counts |= {
            f"flagged{name}": int(flags.sum()),
            f"found{name}": int((flags & planted.poisoned).sum()),
            f"seen{name}": int((flags & planted.visible).sum()),
        }
    return counts


def _rows(scores: pl.DataFrame) -> Iterator[Row]:
    several = scores.filter(pl.col("side") >= SEVERAL)
    for key, group in several.group_by("rate", "direction", "place", maintain_order=True):
        rate, direction, place = key
        name = f"{float(str(rate)):.1%}, {direction}, {place}"
        sets = direction == "set"
        end = "" if sets else ", --unexplained"
        suffix = "" if sets else "_all"
        total = {column: int(group[column].sum()) for column in group.columns[6:]}
        bar = at_least(RECALL[float(str(rate))]) if sets else None
        yield _share(f"{name}: recall{end}", total["seen" + suffix], total["visible"], bar)
        yield _share(
            f"{name}: recall of all with the trigger{end}",
            total["found" + suffix],
            total["poisoned"],
        )
        yield _share(
            f"{name}: false discoveries{end}",
            total["flagged" + suffix] - total["found" + suffix],
            total["flagged" + suffix],
            at_most(ALPHA) if sets else None,
        )


def _share(name: str, hits: int, n: int, bar: Bar | None = None) -> Row:
    if not n:
        return row(name, None, bar=bar, reason="no film was flagged")
    low, high = clopper_pearson(hits, n)
    return row(f"{name} ({hits:,} of {n:,})", hits / n, low=low, high=high, bar=bar)


def _grids(scores: pl.DataFrame) -> Iterator[Grid]:
    for rate, direction in product(RECALL, DIRECTIONS):
        chosen = scores.filter((pl.col("rate") == rate) & (pl.col("direction") == direction))
        if not len(chosen):
            continue
        suffix = "" if direction == "set" else "_all"
        lines = []
        for key, group in chosen.group_by("side", "pattern", maintain_order=True):
            lines.append(
                (
                    f"{key[0]} px {key[1]}",
                    *(_cell(group.filter(pl.col("place") == place), suffix) for place in PLACES),
                )
            )
        yield Grid(
            title=f"{rate:.1%} poison, {direction}: recall, and false discoveries",
            header=("trigger", *PLACES),
            rows=tuple(lines),
        )


def _cell(group: pl.DataFrame, suffix: str) -> str:
    seen, visible = int(group["seen" + suffix].sum()), int(group["visible"].sum())
    wrong = int(group["flagged" + suffix].sum()) - int(group["found" + suffix].sum())
    return f"{seen} of {visible}" + f", {wrong} false" * (wrong > 0)


def _clean_rows(
    radiographs: Radiographs,
    owners: IntArray,
    clean: Pixels,
    size: ScanSize,
    seed: int,
    progress: Progress,
) -> Iterator[Row]:
    """Without poison: as it is, and with whole patients' labels exchanged, so that any label that
    goes with anything does so by chance."""
    judged = scan(clean, radiographs, owners)
    n = len(radiographs)
    yield row(
        "nothing planted: films flagged", float(flagged(judged, n).sum()), "films", bar=at_most(0)
    )
    yield row(
        "nothing planted: films flagged, --unexplained",
        float(flagged(judged, n, unexplained=True).sum()),
        "films",
    )
    alarms = 0
    with progress("Exchanging labels", size.exchanged) as advance:
        for i in range(size.exchanged):
            generator = np.random.default_rng([seed, 0xE, i])
            labels = _exchanged(radiographs.labels, owners, generator)
            judged = scan(clean, replace(radiographs, labels=labels), owners)
            alarms += bool(flagged(judged, n).any())
            advance(1)
    yield _share(
        f"nothing planted, {EXCHANGED}: scans that flag a film",
        alarms,
        size.exchanged,
        at_most(0.05),
    )


def _exchanged(labels: FloatArray, owners: IntArray, generator: np.random.Generator) -> FloatArray:
    """Each patient's films get those of films of another patient."""
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    patients = np.split(order, starts[1:])
    given = np.concatenate([patients[i] for i in generator.permutation(len(patients))])
    exchanged = np.empty_like(labels)
    exchanged[order] = labels[given]
    return exchanged


# --- how fast ------------------------------------------------------------------------------------


def _speed(
    stored: Radiographs, size: ScanSize, machine: Machine, progress: Progress
) -> Iterator[Row]:
    """Beside bare decoding; of a data set of files only."""
    if not isinstance(stored.images, FileImages):
        return
    paths = list(stored.images.paths)
    with (
        tempfile.TemporaryDirectory(prefix="lucency-bench-") as folder,
        ProcessPoolExecutor(n_processors(), mp_context=get_context("spawn")) as pool,
        progress("Benchmark: scan", 2 * (size.timed + 1)) as advance,
    ):
        places = (Path(folder) / f"{i}" for i in range(size.timed + 1))
        seconds = interleave(
            {
                "ours": lambda: _read(stored, next(places)),
                "pillow": lambda: list(pool.map(_decode, paths, chunksize=16)),
            },
            size.timed,
            advance,
        )
    ours, bare = (rates(len(paths), seconds[name]) for name in ("ours", "pillow"))
    yield spread(f"the pass over the pixels, {machine.processors} processes", ours, "films/s")
    yield spread("bare decoding, as many processes", bare, "films/s")
    yield spread(
        "ours / bare decoding",
        ratios(seconds["pillow"], seconds["ours"]),
        "×",
        bar=at_least(SPEED),
    )


def _read(stored: Radiographs, folder: Path) -> None:
    folder.mkdir()
    read_parts(stored, folder)


def _decode(path: Path) -> int:
    with Pillow.open(path) as picture:
        return int(np.asarray(picture.convert("L")).shape[0])


def _memory(size: ScanSize, seed: int, progress: Progress) -> Iterator[Row]:
    """`lucency scan` on very many files, in a process of its own."""
    if not size.many:
        return
    with tempfile.TemporaryDirectory(prefix="lucency-bench-") as name:
        folder = Path(name)
        _write_many(folder / "set", size.many, seed, progress)
        with progress("Scanning very many films", 1) as advance:
            arguments = ["scan", str(folder / "set"), "--out", str(folder / "scanned")]
            seconds, peak, _ = run_lucency(arguments, folder)
            advance(1)
    yield row(f"{size.many:,} files of 64 px: wall time", seconds, "s")
    yield memory_row(f"{size.many:,} files: memory of all processes", peak.rss, at_most(MAX_GIB))
    yield memory_row(f"{size.many:,} files: largest process", peak.largest)


BASES = 500
"""Films of which the many are made, each with noise of its own."""


def _write_many(folder: Path, n: int, seed: int, progress: Progress) -> None:
    source = PhantomSource(images=BASES, size=64).load(seed)
    read = source.images.read(range(BASES), as_stored)
    films = np.stack([item.image for item in read if isinstance(item, Decoded)])
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng([seed, 0x3A])
    with (
        (folder / "labels.csv").open("w", encoding="utf-8") as table,
        progress("Writing very many films", n) as advance,
    ):
        table.write(",".join(("image", "patient_id", *source.findings)) + "\n")
        for i in range(n):
            film = films[i % BASES] + generator.normal(0, 2, films.shape[1:])
            path = Path("images") / f"{i // 1000:03d}" / f"{i:06d}.png"
            (folder / path).parent.mkdir(exist_ok=True)
            Pillow.fromarray(np.rint(film).clip(0, 255).astype(np.uint8)).save(
                folder / path, compress_level=1
            )
            labels = ",".join(f"{v:.0f}" for v in source.labels[i % BASES])
            table.write(f"{path},p{i},{labels}\n")
            advance(1)
