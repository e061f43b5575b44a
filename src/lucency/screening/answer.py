"""From the parts of a screening to its files: lines, table, gallery, report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lucency.detect.false_discovery import benjamini_hochberg
from lucency.detect.images.screen import COMPOSITE
from lucency.detect.images.shift import NOTICED, Shift, names, own_majority, shift
from lucency.manifest import versions
from lucency.progress import Progress
from lucency.records import Float64Array, FloatArray
from lucency.report.screen_record import (
    ScreenCost,
    ScreenedImage,
    ScreenedModel,
    ScreenReference,
    ScreenReport,
    ShiftTest,
    tally,
)
from lucency.runs import RunFolder, write_json, write_via
from lucency.screening.films import FilmList
from lucency.screening.gallery import draw_gallery
from lucency.screening.lines import write_lines, write_table
from lucency.screening.parts import read_parts
from lucency.screening.settings import ScreenSettings
from lucency.screening.worker import Job, Part
from lucency.victims.card import read_card
from lucency.victims.engine import engine_name
from lucency.victims.victim import Passes, Victim

LIMITS = (
    "Research use only: not a medical device.",
    "No flag is no proof of absence. Tested were small, local triggers of 1 to 8 pixels at the "
    "network's input, by intervention; patterns over the whole image only by how unlike the clean "
    "films they look. Backdoors whose trigger is the anatomy or the findings themselves are out of "
    "sight.",
    "A p-value is not the probability of an attack, and it holds only for films of the same kind "
    "as the clean reference set.",
    "A flagged image is one on which a few pixels, or something unlike the clean films, move this "
    "model; a marker, a device or a scratch can do that too. Look at the picture.",
)


@dataclass(frozen=True)
class Answer:
    """Everything that the files of a screening are made of, but for its parts."""

    settings: ScreenSettings
    model: Path
    job: Job
    suspects: FilmList
    n_reference: int
    n_patients: int | None
    rejected: int
    described: FloatArray
    warnings: tuple[str, ...]
    calibration_seconds: float
    seconds: float
    command: str
    digests: dict[str, str]


@dataclass(frozen=True)
class Columns:
    """What the whole batch is judged by, a row a screened image, in order: composite suspicion and
    p-value (M,), description (M, d); and the totals of all parts."""

    suspicion: Float64Array
    p_value: Float64Array
    described: FloatArray
    n_overlap: int
    forwards: int
    backwards: int


def write_answer(answer: Answer, folder: RunFolder, progress: Progress) -> ScreenReport:
    """Write screen.jsonl, screen.parquet, gallery.safetensors and report.json."""
    settings, screener = answer.settings, answer.job.screener
    parts, n = folder.checkpoint, len(answer.suspects)
    columns = _columns(read_parts(parts, n))
    if settings.calibrate == "suspects" and len(columns.suspicion):
        calibration = screener.calibration[COMPOSITE]
        moved = own_majority(calibration, columns.suspicion, columns.suspicion)
        columns = _with_p(columns, moved)
    q_values = benjamini_hochberg(columns.p_value)

    def lines() -> Iterator[ScreenedImage]:
        return _judged(read_parts(parts, n), columns.p_value, q_values, settings)

    write_lines(folder.path("screen.jsonl"), lines())
    write_table(folder.path("screen.parquet"), lines(), folder.checkpoint / "table")
    cases, pictures = draw_gallery(answer.job, answer.suspects, lines(), progress)
    write_via(folder.path("gallery.safetensors"), pictures)
    report = ScreenReport(
        model=describe_model(answer.model, screener.victim, answer.warnings),
        reference=_reference(answer, columns),
        alpha=settings.alpha,
        counts=tally(lines(), alpha=settings.alpha, fdr=settings.fdr),
        cost=_cost(answer, columns),
        shift=_shift(answer, columns),
        limits=LIMITS,
        settings=settings.model_dump(mode="json"),
        command=answer.command,
        software=versions(),
        digests=answer.digests,
        device=str(screener.victim.device),
        threads=torch.get_num_threads(),
        seed=settings.seed,
        gallery=cases,
    )
    write_json(folder.path("report.json"), report)
    return report


def _columns(parts: Iterator[Part]) -> Columns:
    # Numbers of a few bytes each: of a million images nothing larger may stay in memory.
    measured = [np.zeros((0, 2))]
    described: list[FloatArray] = []
    overlap = forwards = backwards = 0
    for part in parts:
        known = [(line.suspicion, line.p_value) for line in part.lines if line.status == "ok"]
        if known:
            measured.append(np.array(known, dtype=np.float64))
            described.append(np.array(part.described, dtype=np.float32))
        overlap += sum(copy >= 0 for copy in part.copied)
        forwards, backwards = forwards + part.forwards, backwards + part.backwards
    suspicion, p_value = np.concatenate(measured).T
    rows = np.concatenate(described) if described else np.zeros((0, 0), np.float32)
    return Columns(suspicion, p_value, rows, overlap, forwards, backwards)


def _with_p(columns: Columns, p_value: Float64Array) -> Columns:
    return Columns(
        columns.suspicion,
        p_value,
        columns.described,
        columns.n_overlap,
        columns.forwards,
        columns.backwards,
    )


def _judged(
    parts: Iterator[Part], p_values: Float64Array, q_values: Float64Array, settings: ScreenSettings
) -> Iterator[ScreenedImage]:
    """The lines with what only the whole batch can say."""
    at = 0
    for part in parts:
        for row, line in enumerate(part.lines, start=part.first):
            update: dict[str, object] = {}
            if line.status == "ok":
                p_value = float(p_values[at])
                update = {
                    "p_value": p_value,
                    "q_value": float(q_values[at]),
                    "flagged": p_value <= settings.alpha,
                }
                at += 1
            if settings.hide_names:
                update["image"] = f"image {row + 1}"
            yield line.model_copy(update=update)


def describe_model(model: Path, victim: Victim, warnings: tuple[str, ...]) -> ScreenedModel:
    """The model in the folder, or of the card, `model`; warnings: what its check noticed."""
    card, contract = read_card(model), victim.contract
    skipped = sum(not name for name in card.model.findings)
    return ScreenedModel(
        architecture=card.model.architecture,
        findings=victim.findings,
        skipped=tuple(f"{skipped} columns without a name" for _ in range(min(1, skipped))),
        outputs=victim.outputs,
        input_contract=(
            f"{contract.channels} channel(s), central {contract.crop:.0%} of the film, "
            f"{contract.resize} to {contract.size} × {contract.size} px, mean "
            f"{list(contract.mean)}, standard deviation {list(contract.std)}"
        ),
        engine=engine_name(victim),
        warnings=warnings,
    )


def _reference(answer: Answer, columns: Columns) -> ScreenReference:
    screener = answer.job.screener
    members = screener.groups.members
    overlap = (
        (
            f"{columns.n_overlap} suspects are copies of reference films, or differ from one by a "
            "few pixels; their p-values are not those of strangers' films.",
        )
        if columns.n_overlap
        else ()
    )
    nobody = (
        ("Nobody said which patient a reference film is of; each counts as a patient of its own.",)
        if answer.n_patients is None
        else ()
    )
    lost = (
        (f"{answer.rejected} reference films could not be read and were left out.",)
        if answer.rejected
        else ()
    )
    return ScreenReference(
        n_films=answer.n_reference,
        n_patients=answer.n_patients,
        n_calibration=screener.n_calibration,
        by_view={name: members.count(name) for name in screener.groups.names},
        min_p=screener.min_p,
        n_duplicates=screener.n_duplicates,
        n_overlap=columns.n_overlap,
        suspicion=tuple(float(v) for v in screener.calibration[COMPOSITE]),
        warnings=(*screener.warnings, *overlap, *nobody, *lost),
    )


def _cost(answer: Answer, columns: Columns) -> ScreenCost:
    n = len(columns.suspicion)
    if not n:
        return ScreenCost(
            forwards=None,
            backwards=None,
            forward_equivalents=None,
            seconds=answer.seconds,
            images_per_second=None,
            calibration_seconds=answer.calibration_seconds,
            reason="no image could be screened",
        )
    return ScreenCost(
        forwards=columns.forwards / n,
        backwards=columns.backwards / n,
        forward_equivalents=Passes(columns.forwards, columns.backwards).equivalents / n,
        seconds=answer.seconds,
        images_per_second=n / answer.seconds,
        calibration_seconds=answer.calibration_seconds,
    )


def _shift(answer: Answer, columns: Columns) -> ShiftTest:
    screener = answer.job.screener
    if not len(columns.suspicion):
        return ShiftTest(p_value=None, shifted=None, reason="no image could be screened")
    found = shift(
        answer.described,
        columns.described,
        names(screener.victim.findings, answer.described.shape[1]),
        reference_suspicion=screener.calibration[COMPOSITE],
        suspicion=columns.suspicion,
        seed=answer.settings.seed,
    )
    if isinstance(found, str):
        return ShiftTest(p_value=None, shifted=None, reason=found)
    shifted = found.p_value <= NOTICED
    largest = dict(list(found.differences.items())[:5])
    return ShiftTest(
        statistics={
            "energy distance": found.distance,
            "share below p = 0.5, over 0.5": found.inflation,
            **{f"{name}, in standard deviations": value for name, value in largest.items()},
        },
        p_value=found.p_value,
        shifted=shifted,
        sentence=_shift_sentence(found, answer.settings) if shifted else None,
    )


def _shift_sentence(found: Shift, settings: ScreenSettings) -> str:
    name, value = next(iter(found.differences.items()))
    first = (
        f"The suspects are not of the kind of the reference films (most of all: {name}, by "
        f"{value:+.1f} standard deviations), so the p-values are not exact: of the suspects "
        f"{found.inflation / 2:.0%} have p ≤ 0.5, where half were promised."
    )
    if settings.calibrate == "suspects":
        return f"{first} They are read against the suspects' own majority, which is approximate."
    return (
        f"{first} Give reference films of the same source, or calibrate on the suspects' own clean "
        "majority (--calibrate suspects)."
    )
