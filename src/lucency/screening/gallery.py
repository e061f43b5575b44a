"""Pictures of the most suspicious images, from the files again: few of many were kept in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.special import expit

from lucency.data.guard import FileImages
from lucency.detect.images.screen import COMPOSITE, calibration_of, screen
from lucency.explain.gradient_median import gradient_median
from lucency.explain.median import median_filter
from lucency.progress import Progress
from lucency.records import Box, Float64Array
from lucency.report.screen_record import ProbabilityChange, ScreenCase, ScreenedImage
from lucency.screening.films import FilmList
from lucency.screening.reading import read_batch
from lucency.screening.worker import Job
from lucency.victims.victim import Victim, frozen, to_grey

N_CASES = 24
OTHERS = 5


def draw_gallery(
    job: Job, films: FilmList, lines: Iterator[ScreenedImage], progress: Progress
) -> tuple[tuple[ScreenCase, ...], Callable[[Path], None]]:
    """The most suspicious images, and the function that writes their pictures."""
    ok = ((row, line) for row, line in enumerate(lines) if line.status == "ok")
    top = heapq.nlargest(N_CASES, ok, key=lambda pair: (pair[1].suspicion or 0.0, -pair[0]))
    cases: list[ScreenCase] = []
    arrays: dict[str, np.ndarray] = {}
    with (
        FileImages([films.paths[row] for row, _ in top]) as files,
        progress("Drawing the gallery", len(top)) as advance,
    ):
        batch = read_batch(files, range(len(top)), job.screener.victim.contract)
        for place, image in zip(batch.rows, batch.images, strict=True):
            _, line = top[int(place)]
            key = f"case-{len(cases) + 1:02d}"
            case, attribution = _case(job, key, line, image)
            arrays[f"{key}/image"] = (image >> 8).astype(np.uint8)
            arrays[f"{key}/attribution"] = attribution
            cases.append(case)
            advance(1)
    packed = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return tuple(cases), lambda path: save_file(packed, path)


def _case(
    job: Job, key: str, line: ScreenedImage, image: np.ndarray
) -> tuple[ScreenCase, np.ndarray]:
    screener, victim = job.screener, job.screener.victim
    screened = screen(screener, image[None])
    x, y, width, height = (int(v) for v in screened.boxes[0])
    region = Box(x=x, y=y, width=width, height=height) if line.evidence == "local" else None
    finding = int(screened.finding[0])
    grey = to_grey(image[None], victim.device)
    before, after = _probabilities(victim, grey, region)
    if victim.differentiable:
        attribution = gradient_median(victim, grey, [finding]).maps[0, 0]
    else:
        # Without gradients: the small structures themselves.
        attribution = (grey - median_filter(grey, 5))[0, 0]
    moved = np.abs(after - before) if region is not None else np.abs(before - before.mean())
    others = [k for k in np.argsort(-moved, kind="stable") if k != finding][:OTHERS]
    return (
        ScreenCase(
            key=key,
            screened=line,
            region=region,
            probabilities=tuple(
                ProbabilityChange(
                    finding=victim.findings[k],
                    before=float(before[k]),
                    after=None if region is None else float(after[k]),
                )
                for k in [finding, *(int(k) for k in others)]
            ),
            context=_context(job, line),
        ),
        attribution.detach().float().cpu().numpy(),
    )


def _probabilities(
    victim: Victim, grey: torch.Tensor, region: Box | None
) -> tuple[Float64Array, Float64Array]:
    """Every finding's probability (K,), with the region and with it smoothed away."""
    from lucency.detect.images.regions import inside, smooth

    repaired = grey
    if region is not None:
        box = torch.tensor([[region.x, region.y, region.width, region.height]]).to(grey.device)
        fill = smooth(grey, region.width)
        repaired = torch.where(inside(box, grey.shape[-1])[:, None], fill, grey)
    with torch.inference_mode(), frozen(victim.network):
        logits = victim.logits(torch.cat([grey, repaired])).double().cpu().numpy()
    before, after = expit(logits)
    return before, after


def _context(job: Job, line: ScreenedImage) -> str:
    if line.p_value is None:
        return ""
    n = len(calibration_of(job.screener, COMPOSITE, line.view))
    above = round(line.p_value * (n + 1)) - 1
    return f"{above} of {n} clean calibration films were at least as suspicious."
