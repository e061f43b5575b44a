"""Do the maps of each method point at triggers whose place is known?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from lucency.bench.baseline_maps import baselines
from lucency.bench.localisation_table import LocalisationRow
from lucency.bench.record import Row
from lucency.bench.regions import Agreement
from lucency.bench.triggered import TriggeredFilms, checked, first, maps_of, oracle
from lucency.errors import LucencyError
from lucency.evaluate.faithfulness import PatchCurve, patch_curve
from lucency.evaluate.localisation import NO_EVIDENCE, localise
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
    """The table, the rows on bf16, and what to know when reading them."""

    table: tuple[LocalisationRow, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


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
    table: list[LocalisationRow] = []
    notes: list[str] = []
    agreement = Agreement()
    for case in cases:
        films = first(checked(case), size.films)
        entrants = {**methods, **baselines(seed)}
        with progress(f"Localisation: {case.name}", len(entrants) + 1) as advance:
            for name, method in entrants.items():
                try:
                    table.append(_measure(films, name, method, size, seed))
                    if name in GRADIENT_METHODS:
                        agreement.compare(films, name, method, size.batch)
                except LucencyError as error:
                    notes.append(f"{case.name}: {name} is left out: {error}")
                advance(1)
            table.append(_score(films, ORACLE, oracle(films), size, seed))
            advance(1)
    if table:
        notes.append(_reading(size))
    return LocalisationResult(tuple(table), agreement.rows(seed), tuple(notes))


def _measure(
    case: TriggeredFilms, name: str, method: Explanation, size: LocalisationSize, seed: int
) -> LocalisationRow:
    films = first(case, size.sweep_films) if name in SWEEPS else case
    return _score(films, name, maps_of(films, name, method, batch=size.batch), size, seed)


def _score(
    case: TriggeredFilms, name: str, maps: FloatArray, size: LocalisationSize, seed: int
) -> LocalisationRow:
    shape = (case.images.shape[1], case.images.shape[2])
    found = [localise(m, box, shape) for m, box in zip(maps, case.boxes, strict=True)]
    curves = _curves(first(case, size.drop_films), maps, size, seed)
    patients = case.patients or ()
    generator = np.random.default_rng([seed, 0x10CA])
    return LocalisationRow(
        trigger=case.name,
        method=name,
        cells_down=maps.shape[1],
        cells_across=maps.shape[2],
        blank=sum(f.reason == NO_EVIDENCE for f in found),
        hit_2px=rate(np.array([f.is_hit for f in found]), patients, generator),
        hit_5px=rate(np.array([f.is_wide_hit for f in found]), patients, generator),
        top_hit=rate(np.array([f.is_top_hit for f in found]), patients, generator),
        energy=mean([f.energy or 0.0 for f in found], patients),
        energy_near=mean([f.energy_near or 0.0 for f in found], patients),
        iou=mean([f.iou or 0.0 for f in found], patients),
        first_drop=mean([c.deletion[0] - c.deletion[1] for c in curves], patients[: len(curves)]),
        mean_drop=mean([c.mean_drop for c in curves], patients[: len(curves)]),
    )


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
