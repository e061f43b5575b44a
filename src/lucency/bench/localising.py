"""Do the maps of each method point at triggers whose place is known?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import torch
from pydantic import Field

from lucency.bench.baseline_maps import baselines
from lucency.bench.localisation_table import LocalisationRow
from lucency.bench.record import Row
from lucency.bench.regions import Agreement
from lucency.bench.triggered import TriggeredFilms, checked, first, maps_of, oracle
from lucency.errors import LucencyError
from lucency.evaluate.faithfulness import PatchCurve, patch_curve
from lucency.evaluate.localisation import NO_EVIDENCE, Localisation, localise
from lucency.evaluate.means import mean
from lucency.evaluate.rates import rate
from lucency.explain import EXPLANATIONS, Explanation
from lucency.explain.batching import logits_of
from lucency.explain.median import median_filter
from lucency.progress import Progress, silent
from lucency.records import FloatArray, Record
from lucency.victims.victim import to_grey

GRADIENT_METHODS = (
    "gradient-median",
    "gradient-input",
    "integrated-gradients",
    "smoothgrad",
    "grad-cam",
    "hirescam",
    "layercam",
)
SWEEPS = ("occlusion", "rise")
ORACLE = "the trigger's own box"


class LocalisationSize(Record):
    """films: triggered films a case; sweep_films: of these, for occlusion and RISE; drop_films: of
    these, for deletion. patch: side of a patch, pixels; patches: how many are filled, by a median
    of fill_width pixels. batch: films together."""

    films: int = Field(default=48, ge=1)
    sweep_films: int = Field(default=8, ge=1)
    drop_films: int = Field(default=16, ge=1)
    patch: int = Field(default=8, ge=1)
    patches: int = Field(default=4, ge=1)
    fill_width: int = Field(default=13, ge=3)
    batch: int = Field(default=16, ge=1)


LOCALISATION = LocalisationSize()


@dataclass(frozen=True)
class LocalisationResult:
    """The table, the rows on bf16, what to know when reading them, and the raw scores: a line a
    film, method and trigger."""

    table: tuple[LocalisationRow, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    scores: pl.DataFrame


@dataclass(frozen=True)
class _Scored:
    """A method on the films of one trigger: each film's scores, and of the first films the curves
    of deletion."""

    trigger: str
    method: str
    cells: tuple[int, int]
    patients: tuple[str, ...]
    found: list[Localisation]
    curves: list[PatchCurve]


def bench_localisation(
    cases: Iterable[TriggeredFilms],
    *,
    seed: int,
    size: LocalisationSize = LOCALISATION,
    methods: Mapping[str, Explanation] = EXPLANATIONS,
    progress: Progress = silent,
) -> LocalisationResult:
    """Score every method and baseline on every case; a method that a victim refuses is a note.

    Bar: bf16 has the same top region as float32 on 98 % of all films, for each gradient method.
    """
    scored: list[_Scored] = []
    notes: list[str] = []
    agreement = Agreement()
    for case in cases:
        films = first(checked(case), size.films)
        entrants = {**methods, **baselines(seed)}
        with progress(f"Localisation: {case.name}", len(entrants) + 1) as advance:
            for name, method in entrants.items():
                try:
                    scored.append(_measure(films, name, method, size, seed))
                    if name in GRADIENT_METHODS:
                        agreement.compare(films, name, method, size.batch)
                except LucencyError as error:
                    notes.append(f"{case.name}: {name} is left out: {error}")
                advance(1)
            scored.append(_score(films, ORACLE, oracle(films), size, seed))
            advance(1)
    if scored:
        notes.append(_reading(size))
    table = tuple(_summary(one, seed) for one in scored)
    return LocalisationResult(table, agreement.rows(seed), tuple(notes), _raw(scored))


def _measure(
    case: TriggeredFilms, name: str, method: Explanation, size: LocalisationSize, seed: int
) -> _Scored:
    films = first(case, size.sweep_films) if name in SWEEPS else case
    return _score(films, name, maps_of(films, name, method, batch=size.batch), size, seed)


def _score(
    case: TriggeredFilms, name: str, maps: FloatArray, size: LocalisationSize, seed: int
) -> _Scored:
    shape = (case.images.shape[1], case.images.shape[2])
    return _Scored(
        trigger=case.name,
        method=name,
        cells=(maps.shape[1], maps.shape[2]),
        patients=case.patients or (),
        found=[localise(m, box, shape) for m, box in zip(maps, case.boxes, strict=True)],
        curves=_curves(first(case, size.drop_films), maps, size, seed),
    )


def _summary(scored: _Scored, seed: int) -> LocalisationRow:
    found, curves, patients = scored.found, scored.curves, scored.patients
    generator = np.random.default_rng([seed, 0x10CA])
    return LocalisationRow(
        trigger=scored.trigger,
        method=scored.method,
        cells_down=scored.cells[0],
        cells_across=scored.cells[1],
        blank=sum(f.reason == NO_EVIDENCE for f in found),
        hit_2px=rate(np.array([f.is_hit for f in found]), patients, generator),
        hit_5px=rate(np.array([f.is_wide_hit for f in found]), patients, generator),
        top_hit=rate(np.array([f.is_top_hit for f in found]), patients, generator),
        energy=mean([f.energy or 0.0 for f in found], patients),
        energy_near=mean([f.energy_near or 0.0 for f in found], patients),
        iou=mean([f.iou or 0.0 for f in found], patients),
        first_drop=mean([_first_drop(c) for c in curves], patients[: len(curves)]),
        mean_drop=mean([c.mean_drop for c in curves], patients[: len(curves)]),
    )


def _raw(scored: Sequence[_Scored]) -> pl.DataFrame:
    """trigger, method, film (its place in the case), what `Localisation` says, and the drops."""
    lines = []
    for one in scored:
        for i, found in enumerate(one.found):
            curve = one.curves[i] if i < len(one.curves) else None
            lines.append(
                {
                    "trigger": one.trigger,
                    "method": one.method,
                    "film": i,
                    **asdict(found),
                    "first_drop": None if curve is None else _first_drop(curve),
                    "mean_drop": None if curve is None else curve.mean_drop,
                }
            )
    return pl.DataFrame(lines, infer_schema_length=None)


def _first_drop(curve: PatchCurve) -> float:
    return float(curve.deletion[0] - curve.deletion[1])


def _curves(
    case: TriggeredFilms, maps: FloatArray, size: LocalisationSize, seed: int
) -> list[PatchCurve]:
    """Deletion and insertion on the target's logit, turned round if the trigger clears it."""
    victim, sign = case.victim, -1.0 if case.direction == "clear" else 1.0

    def logit(images: FloatArray) -> FloatArray:
        grey = torch.from_numpy(images)[:, None].to(victim.device)
        values: FloatArray = logits_of(victim, grey)[:, case.finding].cpu().numpy()
        return sign * values

    grey = to_grey(case.images, torch.device("cpu"))
    width = min(size.fill_width, _odd(min(grey.shape[2:])))
    fill = median_filter(grey, width)
    return [
        patch_curve(
            logit,
            grey[i, 0].numpy(),
            maps[i],
            fill[i, 0].numpy(),
            side=size.patch,
            k=size.patches,
            generator=np.random.default_rng([seed, i]),
        )
        for i in range(len(grey))
    ]


def _odd(length: int) -> int:
    return length if length % 2 else length - 1


def _reading(size: LocalisationSize) -> str:
    return (
        f"Localisation: at most {size.films} triggered films a case ({size.sweep_films} for "
        f"{' and '.join(SWEEPS)}, {size.drop_films} for the drops), none left out; intervals are "
        f"95 %, by patient. Drops: of the target's logit, as the {size.patches} patches of "
        f"{size.patch} × {size.patch} px that a map ranks first are filled by a median of "
        f"{size.fill_width} px; they are to be read against {ORACLE}. Occlusion's smallest windows "
        "are larger than the pixels that they are drawn on."
    )
