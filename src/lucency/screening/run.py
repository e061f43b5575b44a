"""`lucency screen`: from images, a model and a clean reference set to a folder with the answer."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lucency.config_faults import shown
from lucency.data.guard import FileImages
from lucency.detect.images.reference import thumbnails
from lucency.detect.images.screen import SCHEDULES, fit_screener
from lucency.detect.images.shift import describe_reference
from lucency.detect.images.transplant import Donors
from lucency.errors import DataError
from lucency.manifest import sha256_of, versions
from lucency.progress import Progress, silent
from lucency.records import FloatArray, Rejected
from lucency.report.screen_page import render_screen
from lucency.report.screen_record import ScreenReport
from lucency.runs import RunFolder, read_manifest, write_text
from lucency.screening.answer import Answer, write_answer
from lucency.screening.films import FilmList, list_films
from lucency.screening.parts import Run, here, screen_parts
from lucency.screening.reading import Batch, read_batch
from lucency.screening.settings import ScreenSettings
from lucency.screening.worker import Job
from lucency.victims.card import load_victim
from lucency.victims.contract_check import check_victim
from lucency.victims.engine import engine_name, with_engine
from lucency.victims.victim import Victim
from lucency.writing import digest

IDENTITY = ("lucency", "lucency code", "torch", "monai", "openvino", "onnxruntime")
MAX_DONORS = 64


@dataclass(frozen=True)
class Reference:
    """The clean films that could be read: one array, whose they are, and what was rejected."""

    films: FilmList
    batch: Batch
    rejected: tuple[Rejected, ...]

    def patients(self) -> list[str]:
        """A patient a film, see `FilmList.owners`."""
        owners = self.films.owners()
        return [owners[r] for r in self.batch.rows]

    @property
    def is_attributed(self) -> bool:
        """Whether every film's patient is known."""
        return all(self.films.patients[r] for r in self.batch.rows)

    def views(self) -> list[str | None]:
        return [self.films.views[r] for r in self.batch.rows]


def screen_images(
    images: Sequence[Path],
    model: Path,
    reference: Path,
    out: Path,
    settings: ScreenSettings,
    *,
    command: str = "",
    run_code: bool = False,
    run: Run = here,
    progress: Progress = silent,
) -> Path:
    """Screen images and folders of images, write everything into `out`, and return it.

    run_code: whether the model's card may name a factory, code that is then called.

    A screening that was killed goes on where it stopped; one that is finished is left as it is.
    Raises LucencyError: nothing to screen, a model or a reference set that cannot be used, a folder
    that cannot be written. An image that cannot be read is a line of the answer, not an error.
    """
    suspects, clean = list_films(images), list_films([reference])
    victim = with_engine(load_victim(model, run_code=run_code), settings.engine)
    identity = _identity(suspects, clean, model, settings, engine_name(victim))
    with RunFolder.at(out) as folder:
        if folder.finished() and _is_same(folder, identity):
            return folder.folder
        folder.begin(identity)
        started = time.perf_counter()
        known, job, described, checked = prepare(victim, clean, settings, progress)
        calibrated = time.perf_counter()
        screen_parts(job, suspects, folder.checkpoint, run, progress=progress)
        answer = Answer(
            settings=settings,
            model=model,
            job=job,
            suspects=suspects,
            n_reference=len(known.batch.rows),
            n_patients=len(set(known.patients())) if known.is_attributed else None,
            rejected=len(known.rejected),
            described=described,
            warnings=checked,
            calibration_seconds=calibrated - started,
            seconds=time.perf_counter() - calibrated,
            command=command,
            digests=_digests(model, identity),
        )
        report = write_answer(answer, folder, progress)
        write_text(folder.path("report.html"), render_screen(folder.folder))
        _finish(folder, settings, report, identity)
        return folder.folder


def prepare(
    victim: Victim, clean: FilmList, settings: ScreenSettings, progress: Progress = silent
) -> tuple[Reference, Job, FloatArray, tuple[str, ...]]:
    """Read the reference, check the model on it and calibrate: the reference, what a worker needs,
    the calibration films' descriptions, and what the check of the model noticed."""
    known = read_reference(clean, victim, progress)
    films = known.batch.images
    checked = check_victim(victim, films)
    screener = fit_screener(
        victim,
        films,
        known.patients(),
        seed=settings.seed,
        views=known.views(),
        alpha=settings.alpha,
        schedule=SCHEDULES[settings.examine],
        progress=progress,
    )
    calibration, chosen = screener.calibrated, screener.rows
    spread = np.maximum(calibration.logits.std(axis=0), 1e-6)
    donors = Donors(films[chosen[:MAX_DONORS]], calibration.logits[:MAX_DONORS], spread)
    basis, described = describe_reference(films[chosen], calibration.logits, calibration.features)
    job = Job(settings, screener, donors, basis, thumbnails(films))
    return known, job, described, checked


def read_reference(clean: FilmList, victim: Victim, progress: Progress) -> Reference:
    """Read the reference films. Raises DataError if none can be read."""
    with FileImages(clean.paths) as files, progress("Reading the reference", len(clean)) as advance:
        batch = read_batch(files, range(len(clean)), victim.contract)
        advance(len(clean))
    rejected = tuple(
        Rejected(image=shown(clean.names[row], 100), reason=reason)
        for row, reason in sorted(batch.rejected.items())
    )
    if not len(batch.rows):
        raise DataError(
            f"At least one readable reference film was expected, got none of {len(clean)} (the "
            f"first: {rejected[0].image}: {rejected[0].reason})."
        )
    return Reference(clean, batch, rejected)


def _identity(
    suspects: FilmList, clean: FilmList, model: Path, settings: ScreenSettings, engine: str
) -> str:
    """What the answer depends on; files by what the tables say of them, path, size and time, for a
    folder may hold millions."""
    return digest(
        {
            "settings": settings,
            "engine": engine,
            "suspects": listing(suspects),
            "reference": listing(clean),
            "model": model_digests(model),
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
            "threads": torch.get_num_threads(),
        }
    )


def listing(films: FilmList) -> str:
    """A digest, made a film at a time."""
    content = hashlib.sha256()
    columns = (films.paths, films.names, films.patients, films.views)
    for path, *said in zip(*columns, strict=True):
        film = [str(path), *stamp_of(path), *said]
        content.update(json.dumps(film).encode() + b"\n")
    return content.hexdigest()


def stamp_of(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def model_digests(model: Path) -> dict[str, str]:
    """sha256 of the card and the files beside it."""
    folder = model.parent if model.suffix == ".toml" else model
    names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    return {name: sha256_of(folder / name) for name in names}


def _digests(model: Path, identity: str) -> dict[str, str]:
    return {**model_digests(model), "screening": identity}


def _is_same(folder: RunFolder, identity: str) -> bool:
    return read_manifest(folder.folder).extra.get("identity") == identity


def _finish(
    folder: RunFolder, settings: ScreenSettings, report: ScreenReport, identity: str
) -> None:
    folder.finish(
        config=settings,
        seed=settings.seed,
        device=report.device,
        threads=report.threads,
        timings={"screening": report.cost.seconds},
        extra={"identity": identity},
    )
