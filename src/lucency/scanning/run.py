"""`lucency scan`: from a training set to a folder with the answer."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from lucency.data.guard import FileImages
from lucency.data.label_table import NO_FILM, NoImages
from lucency.data.sources import AnySource
from lucency.detect.datasets.duplicates import copies
from lucency.detect.datasets.label_patterns import LabelAudit, audit_labels
from lucency.detect.datasets.pixels import Pixels
from lucency.detect.datasets.recurrence import Recurrence, recurrences
from lucency.manifest import versions
from lucency.progress import Progress, silent
from lucency.records import BoolArray, Estimate, IntArray, Radiographs, Rejected
from lucency.report.scan_page import render_scan
from lucency.report.scan_record import Copies, ScannedData, ScannedImage, ScanReport, ScanTest
from lucency.runs import (
    RunFolder,
    digest,
    read_manifest,
    write_json,
    write_text,
    write_via,
)
from lucency.scanning.clean_table import write_clean
from lucency.scanning.completion import complete
from lucency.scanning.copies import NO_COPIES, describe_copies
from lucency.scanning.findings import (
    Judged,
    flagged,
    judge,
    poison_rate,
    shared_thing,
    smallest,
)
from lucency.scanning.label_findings import (
    flagged_labels,
    kind_of_labels,
    least_likely,
    odd_labels,
    shares,
)
from lucency.scanning.montage import draw
from lucency.scanning.reading import Run, here, kept, read_parts
from lucency.scanning.settings import ScanSettings
from lucency.scanning.words import give_verdict, kind_of
from lucency.screening.run import IDENTITY, stamp_of

OF_FILMS = ("recurring specks", "copies")
"""Tests that need films."""
MOST_THINGS = 200
"""Things in `scan.json`; the others are counted."""


@dataclass(frozen=True)
class Scanned:
    """What the tests said of all films. rows: of those that could be read."""

    rows: IntArray
    rejected: tuple[Rejected, ...]
    found: tuple[Recurrence, ...]
    judged: tuple[Judged, ...]
    copies: Copies
    in_conflict: IntArray
    labels: LabelAudit
    tests: tuple[ScanTest, ...]


def scan_data(
    source: AnySource,
    out: Path,
    settings: ScanSettings,
    *,
    command: str = "",
    run: Run = here,
    progress: Progress = silent,
) -> Path:
    """Scan a training set, write everything into `out`, and return it.

    A scan that was killed goes on where it stopped; one that is finished is left as it is. Raises
    LucencyError for a data set that cannot be used as a whole, and a folder that cannot be written;
    a film that cannot be read is a line of the answer.
    """
    radiographs = source.load(settings.seed)
    identity = _identity(source, radiographs, settings)
    with RunFolder.at(out) as folder:
        if folder.finished() and read_manifest(out).extra.get("identity") == identity:
            return folder.folder
        started = time.perf_counter()
        folder.begin(identity)
        scanned = _scan(radiographs, folder.checkpoint, settings, run, progress)
        things = [
            shared_thing(each, f"thing-{i}", radiographs)
            for i, each in enumerate(scanned.judged[:MOST_THINGS], 1)
        ]
        odd = [odd_labels(pattern, radiographs) for pattern in scanned.labels.patterns]
        flags = _flags(scanned, len(radiographs), settings)
        pictures = draw(radiographs, scanned.judged)
        write_via(folder.path("montage.safetensors"), lambda path: save_file(pictures, path))
        write_via(folder.path("scan.jsonl"), lambda path: _write(path, radiographs, scanned, flags))
        unreadable = np.ones(len(radiographs), np.bool_)
        unreadable[scanned.rows] = False
        write_clean(folder.path("clean.csv"), source, radiographs, ~flags & ~unreadable)
        report = ScanReport(
            verdict=kind_of(things, odd),
            words=give_verdict(
                things, len(scanned.judged), odd, int(flags.sum()), scanned.copies, settings.alpha
            ),
            warnings=_warnings(radiographs, scanned),
            alpha=settings.alpha,
            data=_data(source, radiographs, scanned.rows),
            n_flagged=int(flags.sum()),
            poison_rate=_poison_rate(scanned),
            things=tuple(things),
            n_things=len(scanned.judged),
            labels=tuple(odd),
            copies=scanned.copies,
            tests=scanned.tests,
            rejected=(*radiographs.rejected, *scanned.rejected),
            seconds=time.perf_counter() - started,
            settings=settings.model_dump(mode="json"),
            command=command,
            software=versions(),
            digests={"scan": identity},
            threads=torch.get_num_threads(),
            seed=settings.seed,
        )
        write_json(folder.path("scan.json"), report)
        write_text(folder.path("report.html"), render_scan(folder.folder))
        folder.finish(
            config=settings,
            seed=settings.seed,
            threads=report.threads,
            timings={test.name: test.seconds for test in scanned.tests},
            extra={"identity": identity},
        )
        return folder.folder


def _flags(scanned: Scanned, n: int, settings: ScanSettings) -> BoolArray:
    shared = flagged(scanned.judged, n, unexplained=settings.unexplained)
    return shared | flagged_labels(scanned.labels.patterns, n, unexplained=settings.unexplained)


def _poison_rate(scanned: Scanned) -> Estimate:
    edited = [(p.films, (p.share, *shares(p))) for p in scanned.labels.patterns]
    return poison_rate(scanned.judged, edited, len(scanned.rows))


def _scan(
    radiographs: Radiographs,
    folder: Path,
    settings: ScanSettings,
    run: Run,
    progress: Progress,
) -> Scanned:
    """Everything that is asked of a data set."""
    _, owners = np.unique(radiographs.patient_ids, return_inverse=True)
    pixels = (
        _without_films(radiographs)
        if isinstance(radiographs.images, NoImages)
        else _scan_films(radiographs, owners, folder, settings, run, progress)
    )
    started = time.perf_counter()
    with progress("Looking at labels", 1) as advance:
        labels = audit_labels(
            radiographs.labels, owners, radiographs.views, settings.alpha, settings.seed
        )
        advance(1)
    test = ScanTest(
        name="labels against labels",
        looked_at=f"{radiographs.labels.size:,} labels of {len(radiographs):,} films",
        comparisons=labels.n_tests,
        seconds=time.perf_counter() - started,
    )
    return replace(pixels, labels=labels, tests=(*pixels.tests, test))


NO_LABELS = LabelAudit((), 0, np.zeros((0, 0), np.float32), np.zeros(0))


def _without_films(radiographs: Radiographs) -> Scanned:
    return Scanned(
        rows=np.arange(len(radiographs)),
        rejected=(),
        found=(),
        judged=(),
        copies=NO_COPIES,
        in_conflict=np.zeros(0, np.int64),
        labels=NO_LABELS,
        tests=tuple(ScanTest(name=name, looked_at="", reason=NO_FILM) for name in OF_FILMS),
    )


def _scan_films(
    radiographs: Radiographs,
    owners: IntArray,
    folder: Path,
    settings: ScanSettings,
    run: Run,
    progress: Progress,
) -> Scanned:
    n = len(radiographs)
    started = time.perf_counter()
    read_parts(radiographs, folder, run, progress=progress)
    rows, hashes = [], []
    rejected: list[Rejected] = []
    n_specks = 0
    for part in kept(folder, n):
        rows.append(part.pixels.rows)
        hashes.append(part.pixels.hashes)
        rejected += part.rejected
        n_specks += len(part.pixels.film)
    readable = np.concatenate(rows)

    def pixels() -> Iterator[Pixels]:
        return (part.pixels for part in kept(folder, n))

    found = recurrences(pixels, radiographs.labels, owners)
    judged = judge(found.kept, radiographs, owners, settings.alpha)
    judged = complete(judged, radiographs, owners, progress=progress)
    recurring = time.perf_counter()
    described, in_conflict = describe_copies(
        radiographs, owners, readable, copies(np.concatenate(hashes))
    )
    specks, twice = OF_FILMS
    tests = (
        ScanTest(
            name=specks,
            looked_at=f"{n_specks:,} specks of at most 8 px on {len(readable):,} films",
            comparisons=found.n_tests,
            seconds=recurring - started,
        ),
        ScanTest(
            name=twice,
            looked_at=f"a difference hash of each of {len(readable):,} films",
            seconds=time.perf_counter() - recurring,
        ),
    )
    return Scanned(
        rows=readable,
        rejected=tuple(rejected),
        found=found.kept,
        judged=judged,
        copies=described,
        in_conflict=in_conflict,
        labels=NO_LABELS,
        tests=tests,
    )


def _write(path: Path, radiographs: Radiographs, scanned: Scanned, flags: BoolArray) -> None:
    """`scan.jsonl`: a line an image, as JSON."""
    with path.open("w", encoding="utf-8") as file:
        for line in _lines(radiographs, scanned, flags):
            file.write(line.model_dump_json() + "\n")


def _lines(radiographs: Radiographs, scanned: Scanned, flags: BoolArray) -> Iterator[ScannedImage]:
    n = len(radiographs)
    p_values, q_values = smallest(scanned.found, n)
    evidence: dict[int, list[str]] = {}
    for i, each in enumerate(scanned.judged, 1):
        for row in each.recurrence.films.tolist():
            evidence.setdefault(row, []).append(f"thing {i}: {each.kind}")
    for i, pattern in enumerate(scanned.labels.patterns, 1):
        for row in pattern.films.tolist():
            evidence.setdefault(row, []).append(f"labels {i}: {kind_of_labels(pattern)}")
    for row in scanned.in_conflict.tolist():
        evidence.setdefault(row, []).append("a copy of it has other labels")
    reasons = {each.image: each.reason for each in scanned.rejected}
    for row, image in enumerate(radiographs.image_ids):
        if image in reasons:
            yield ScannedImage(image=image, status="rejected", reason=reasons[image])
            continue
        yield ScannedImage(
            image=image,
            status="ok",
            suspicion=max(0.0, float(-np.log10(p_values[row]))),
            p_value=float(p_values[row]),
            q_value=float(q_values[row]),
            flagged=bool(flags[row]),
            evidence=tuple(evidence.get(row, ())),
            label_suspicion=float(scanned.labels.suspicion[row]),
            label=least_likely(scanned.labels, radiographs, row),
        )


def _data(source: AnySource, radiographs: Radiographs, rows: IntArray) -> ScannedData:
    labels = radiographs.labels[rows]
    return ScannedData(
        name=radiographs.name,
        source=source.source,
        findings=radiographs.findings,
        n_films=len(rows),
        n_patients=len({radiographs.patient_ids[row] for row in rows}),
        n_positive=tuple(int(n) for n in (labels == 1).sum(axis=0)),
        notes=radiographs.notes,
    )


def _warnings(radiographs: Radiographs, scanned: Scanned) -> tuple[str, ...]:
    found = []
    n = len(scanned.rejected) + len(radiographs.rejected)
    if n:
        found.append("One film could not be read." if n == 1 else f"{n:,} films could not be read.")
    if len(scanned.judged) > MOST_THINGS:
        found.append(f"Only the first {MOST_THINGS} things that films share are listed.")
    return tuple(found)


def _identity(source: AnySource, radiographs: Radiographs, settings: ScanSettings) -> str:
    """What the answer depends on; films by path, size and time, for there may be millions."""
    images = radiographs.images
    paths: Sequence[str | Path] = ()
    if isinstance(images, FileImages):
        paths = images.paths
    elif isinstance(path := getattr(source, "path", None), Path):
        paths = (path,)
    content = hashlib.sha256()
    for each in paths:
        content.update(json.dumps([str(each), *stamp_of(Path(each))]).encode() + b"\n")
    return digest(
        {
            "settings": settings,
            "source": source,
            "files": content.hexdigest(),
            "images": list(radiographs.image_ids),
            "patients": list(radiographs.patient_ids),
            "labels": hashlib.sha256(radiographs.labels.tobytes()).hexdigest(),
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
        }
    )
