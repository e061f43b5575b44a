"""The maps of one method on one image, in numbers and as a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from lucency.data.preprocess import InputContract, full_scale
from lucency.errors import ModelError
from lucency.evaluate.localisation import Peak, find_peak
from lucency.explain import Attribution
from lucency.explaining.record import Explained, MapSummary
from lucency.records import Box, FloatArray, Image
from lucency.report.panels import Mark, Panel, draw_panels
from lucency.victims.victim import Victim


@dataclass(frozen=True)
class Film:
    """One image: its number on the command line, its name, what the network sees (size, size) in
    the stored dtype, and its (height, width) as stored."""

    number: int
    name: str
    pixels: Image
    native_shape: tuple[int, int]


def stem(film: Film) -> str:
    """What the image's files start with; it says nothing about the patient."""
    return f"image-{film.number:04d}"


def summarise(film: Film, method: str, attribution: Attribution, victim: Victim) -> Explained:
    """The numbers of one method's maps; one image, F findings.

    Raises ModelError for a logit that is not finite.
    """
    logits = attribution.logits[0].detach().float().cpu()
    if not torch.isfinite(logits).all():
        raise ModelError(
            "The network must return finite logits, got one that is not; its weights are broken."
        )
    maps = attribution.maps[0].detach().float().cpu().numpy()
    errors = attribution.completeness
    return Explained(
        method=method,
        cells_down=maps.shape[1],
        cells_across=maps.shape[2],
        picture=f"{stem(film)}-{method}.png",
        maps=tuple(
            _summary(
                film,
                victim.findings[finding],
                float(logits[finding]),
                maps[i],
                None if errors is None else float(errors[0, i]),
                victim.contract,
            )
            for i, finding in enumerate(attribution.findings)
        ),
    )


def picture(film: Film, explained: Explained, maps: FloatArray) -> bytes:
    """The film and the maps (F, h, w) over it, as PNG bytes."""
    size = film.pixels.shape[0]
    down, across = explained.cells_down, explained.cells_across
    panels = []
    for summary, cells in zip(explained.maps, maps, strict=True):
        peak = find_peak(cells, (size, size))
        mark = None
        if isinstance(peak, Peak):
            mark = Mark(peak.x, peak.y, peak.columns * size / across, peak.rows * size / down)
        panels.append(Panel(summary.finding, cells, summary.logit, mark))
    grey = np.rint(film.pixels / (full_scale(film.pixels.dtype) / 255)).astype(np.uint8)
    return draw_panels(
        grey,
        panels,
        title=f"Image {film.number}: {explained.method}",
        note=f"{down} × {across} cells of {size / down:.3g} × {size / across:.3g} px. "
        "Each scale is the map's own. Framed: the strongest cells.",
    )


def _summary(
    film: Film,
    finding: str,
    logit: float,
    cells: FloatArray,
    completeness_error: float | None,
    contract: InputContract,
) -> MapSummary:
    is_finite = bool(np.isfinite(cells).all())
    peak = find_peak(cells, (contract.size, contract.size))
    has_error = completeness_error is not None and math.isfinite(completeness_error)
    return MapSummary(
        finding=finding,
        logit=logit,
        probability=float(expit(logit)),
        least=float(cells.min()) if is_finite else None,
        most=float(cells.max()) if is_finite else None,
        peak=_native(peak, cells.shape, film, contract) if isinstance(peak, Peak) else None,
        reason=None if isinstance(peak, Peak) else peak,
        completeness_error=completeness_error if has_error else None,
    )


def _native(peak: Peak, grid: tuple[int, ...], film: Film, contract: InputContract) -> Box:
    """Every stored pixel that has a part in the strongest cells."""
    y, down = _pixels(peak.row, peak.rows, grid[0], contract.size)
    x, across = _pixels(peak.column, peak.columns, grid[1], contract.size)
    return contract.to_native_box(Box(x=x, y=y, width=across, height=down), film.native_shape)


def _pixels(first: int, count: int, n_cells: int, size: int) -> tuple[int, int]:
    """First pixel and number of pixels of an axis that some of its cells cover at least in part."""
    start, end = first * size // n_cells, -(-(first + count) * size // n_cells)
    return start, end - start
