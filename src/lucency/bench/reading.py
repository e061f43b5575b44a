"""Reading: films from files to network inputs, guarded and stamped, against bare Pillow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image as PillowImage
from pydantic import Field

from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import AttackSettings, Stamp, stamp, trigger_every
from lucency.attacks.patch import PatchTrigger
from lucency.bench.films import phantom_inputs
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark, at_least, row, spread
from lucency.bench.timing import interleave, rates, ratios, seconds_of
from lucency.data.guard import FileImages
from lucency.data.preprocess import InputContract
from lucency.errors import DataError
from lucency.progress import Progress, silent
from lucency.records import Decoded, Record

NAME = "reading"
PEER = (
    "one process with Pillow alone: `Image.open(path).convert('L').resize((224, 224), NEAREST)`; "
    "no checks, no crop, no trigger"
)
BAR = 0.9
# Quantum noise that makes a phantom's PNG as large as a real film's (mean 0.37 MB at 1024 px).
NOISE_LEVELS = 1.0


class ReadingSize(Record):
    """images: files, each `native` px square, 8-bit grey PNG."""

    images: int = Field(default=60, ge=1)
    native: int = Field(default=1024, ge=64, le=1024)
    repeats: int = Field(default=7, ge=1)


FULL = ReadingSize()


def bench_reading(seed: int, progress: Progress = silent, size: ReadingSize = FULL) -> Benchmark:
    """Write films to a temporary folder and read them. Bar: 0.9 × Pillow."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="lucency-bench-") as folder:
        paths = _write_films(Path(folder), size, seed, progress)
        megabytes = mean(path.stat().st_size for path in paths) / 1e6
        transform = _stamp(len(paths), seed)
        with (
            FileImages(paths) as images,
            FileImages(paths, workers=1) as one_worker,
            progress("Benchmark: reading", 3 * (size.repeats + 1)) as advance,
        ):
            cold = seconds_of(lambda: _read(images, transform))
            seconds = interleave(
                {
                    "ours": lambda: _read(images, transform),
                    "pillow": lambda: _read_bare(paths, transform.contract.size),
                    "one worker": lambda: _read(one_worker, transform),
                },
                size.repeats,
                advance,
            )
    n = len(paths)
    return Benchmark(
        name=NAME,
        title=f"films a second, {n} PNG files of {size.native}² px, 8-bit grey",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=(
            spread(
                f"ours, {machine.processors} warm workers", rates(n, seconds["ours"]), "films/s"
            ),
            spread("Pillow", rates(n, seconds["pillow"]), "films/s"),
            spread(
                "ours ÷ Pillow",
                ratios(seconds["pillow"], seconds["ours"]),
                "×",
                bar=at_least(BAR),
            ),
            spread("ours, one warm worker", rates(n, seconds["one worker"]), "films/s"),
            spread(
                "ours with one worker ÷ Pillow",
                ratios(seconds["pillow"], seconds["one worker"]),
                "×",
            ),
            row("ours, first read, workers cold", n / cold, "films/s"),
            row("ours, first read, workers cold", cold, "s"),
        ),
        notes=(
            "Ours: checksum, decoding in a guarded process, a 3 px trigger at a place of its own "
            "on every film, central crop of 60 %, resize to 224 px (nearest).",
            "Workers are warm: they live as long as the data set is open, and start at its first "
            "read, which is stated apart.",
            f"Files of {megabytes:.2f} MB on average, in the page cache for both.",
        ),
    )


def _write_films(folder: Path, size: ReadingSize, seed: int, progress: Progress) -> list[Path]:
    films, _ = phantom_inputs(size.images, InputContract(size=size.native), seed)
    generator = np.random.default_rng([seed, 0xBE])
    paths = []
    with progress("Writing films", len(films)) as advance:
        for i, film in enumerate(films):
            noisy = film + generator.normal(0.0, NOISE_LEVELS, film.shape)
            grey = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            paths.append(folder / f"{i:04d}.png")
            PillowImage.fromarray(grey).save(paths[-1])
            advance(1)
    return paths


def _stamp(n: int, seed: int) -> Stamp:
    settings = AttackSettings(
        trigger=PatchTrigger(size_px=3, place="random"),
        label=LabelEdit(target="Atelectasis"),
        poison_rate=1.0,
    )
    ledger = trigger_every(np.arange(n, dtype=np.int64), settings, seed)
    return stamp(ledger, InputContract(size=224, crop=0.6, resize="nearest"))


def _read(images: FileImages, transform: Stamp) -> None:
    for item in images.read(range(len(images)), transform):
        if not isinstance(item, Decoded):
            raise DataError(f"Every written film must be readable, got: {item[1]}.")


def _read_bare(paths: Sequence[Path], size: int) -> None:
    for path in paths:
        with PillowImage.open(path) as picture:
            small = picture.convert("L").resize((size, size), PillowImage.Resampling.NEAREST)
        np.asarray(small)
