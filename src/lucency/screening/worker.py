"""Screens one part of the suspects: the same function in this process and on another machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from lucency.detect.images.covering import CoveringTest, cover
from lucency.detect.images.reference import copies, thumbnails
from lucency.detect.images.screen import COMPOSITE, Screener, Screening, screen
from lucency.detect.images.shift import Basis, describe
from lucency.detect.images.transplant import Donors, transplant
from lucency.records import BoolArray, Box, Float64Array, Images, Record
from lucency.report.screen_record import ScreenedImage, Transplant
from lucency.screening.reading import Batch, read_batch
from lucency.screening.settings import ScreenSettings
from lucency.victims.victim import frozen, to_grey

NO_ANSWER = "the network's answer to it is not a number"


class Part(Record):
    """What came of some consecutive suspects. described: a row for each that was screened, for the
    test of shift; copied: for each of them the reference film that it is a copy of, or -1; passes
    spent; seconds of work."""

    first: int
    lines: tuple[ScreenedImage, ...]
    described: tuple[tuple[float, ...], ...]
    copied: tuple[int, ...]
    forwards: int
    backwards: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """All that a worker needs beside the files."""

    settings: ScreenSettings
    screener: Screener
    donors: Donors
    basis: Basis
    thumbnails: Float64Array


def screen_part(
    job: Job,
    images: Images,
    rows: Sequence[int],
    names: Sequence[str],
    views: Sequence[str | None],
) -> Part:
    """Screen the suspects `rows` of `images`; names and views: one for each of the rows."""
    start = time.perf_counter()
    victim = job.screener.victim
    before = (victim.passes.forwards, victim.passes.backwards)
    batch = read_batch(images, rows, victim.contract)
    by_row = dict(zip(rows, zip(names, views, strict=True), strict=True))
    lines = {
        row: ScreenedImage(image=by_row[row][0], status="rejected", reason=reason)
        for row, reason in batch.rejected.items()
    }
    described: tuple[tuple[float, ...], ...] = ()
    copied: tuple[int, ...] = ()
    if len(batch.rows):
        known = [by_row[int(row)][1] for row in batch.rows]
        screened = screen(job.screener, batch.images, views=known)
        answered = _is_answered(screened)
        for i, row in enumerate(batch.rows):
            name, view = by_row[int(row)]
            lines[int(row)] = (
                _line(job, batch, screened, i, name, view)
                if answered[i]
                else ScreenedImage(image=name, status="rejected", reason=NO_ANSWER)
            )
        described, copied = _compared(job, batch, screened, answered)
    taken = time.perf_counter() - start
    ordered = [lines[row] for row in rows]
    share = taken / max(1, len(batch.rows))
    return Part(
        first=int(rows[0]),
        lines=tuple(
            line.model_copy(update={"seconds": share}) if line.status == "ok" else line
            for line in ordered
        ),
        described=described,
        copied=copied,
        forwards=victim.passes.forwards - before[0],
        backwards=victim.passes.backwards - before[1],
        seconds=taken,
    )


def _is_answered(screened: Screening) -> BoolArray:
    """(M,): whether all that the network said of an image, and of its copies, is a number."""
    told = [screened.logits, screened.logit[:, None], screened.repaired[:, None]]
    told += [values[:, None] for values in screened.suspicion.values()]
    answered: BoolArray = np.logical_and.reduce(np.isfinite(np.hstack(told)), axis=1)
    return answered


def _compared(
    job: Job, batch: Batch, screened: Screening, answered: BoolArray
) -> tuple[tuple[tuple[float, ...], ...], tuple[int, ...]]:
    """The answered images' descriptions, and which reference film each is a copy of."""
    if not answered.any():
        return (), ()
    images = batch.images[answered]
    features = None if screened.features is None else screened.features[answered]
    table = describe(job.basis, images, screened.logits[answered], features)
    copied = copies(thumbnails(images), job.thumbnails)
    return tuple(tuple(float(v) for v in row) for row in table), tuple(int(v) for v in copied)


def _line(
    job: Job, batch: Batch, screened: Screening, i: int, name: str, view: str | None
) -> ScreenedImage:
    victim, alpha = job.screener.victim, job.settings.alpha
    p_value = float(screened.p_value[COMPOSITE][i])
    flagged, local = p_value <= alpha, bool(screened.is_local[i])
    shape = (int(batch.native[i, 0]), int(batch.native[i, 1]))
    x, y, width, height = (int(v) for v in screened.boxes[i])
    network_box = Box(x=x, y=y, width=width, height=height)
    finding = int(screened.finding[i])
    return ScreenedImage(
        image=name,
        status="ok",
        suspicion=float(screened.suspicion[COMPOSITE][i]),
        p_value=p_value,
        flagged=flagged,
        finding=victim.findings[finding] if local else None,
        direction=("set" if screened.is_set[i] else "clear") if local else None,
        region=victim.contract.to_native_box(network_box, shape) if local else None,
        logit=float(screened.logit[i]) if local else None,
        logit_without_region=float(screened.repaired[i]) if local else None,
        scores={name: float(value[i]) for name, value in screened.suspicion.items()},
        evidence="local" if local else "whole-image",
        view=view if view in job.screener.groups.names else None,
        transplant=_transplant(job, batch, screened, i) if flagged and local else None,
        negative=_covering(job, batch, i, flagged=flagged),
    )


def _transplant(job: Job, batch: Batch, screened: Screening, i: int) -> Transplant:
    found = transplant(
        job.screener.victim,
        batch.images[i],
        screened.boxes[i],
        int(screened.finding[i]),
        raises=bool(screened.is_set[i]),
        donors=job.donors,
        seed=job.settings.seed,
    )
    return Transplant(
        n_donors=found.n_donors,
        same_place=found.same_place,
        elsewhere=found.elsewhere,
        control=found.control,
        transfers=found.transfers,
    )


def _covering(job: Job, batch: Batch, i: int, *, flagged: bool) -> str | None:
    wanted = job.settings.covering
    if wanted == "never" or (wanted == "flagged" and not flagged):
        return None
    victim, test = job.screener.victim, CoveringTest()
    spread = torch.from_numpy(job.donors.spread)
    with torch.inference_mode(), frozen(victim.network):
        grey = to_grey(batch.images[i][None], victim.device)
        found = cover(victim, grey, spread.to(grey), test)
    moved = torch.maximum(found.drops, found.rises).cpu().double()
    most = int((moved / spread).argmax())
    logit = float(found.logits[most])
    low, high = logit - float(found.drops[most]), logit + float(found.rises[most])
    return (
        f"Hiding any of the overlapping windows of {found.window} px, which together cover every "
        f"patch of {test.patch} × {test.patch} px at the network whole, moves no finding further "
        f"than {victim.findings[most]}, from {expit(logit):.3f} to between {expit(low):.3f} and "
        f"{expit(high):.3f}; no single patch of that size does more ({found.forwards} passes)."
    )
