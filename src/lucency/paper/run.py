"""`lucency reproduce paper`: the published grid as sweeps, and a page that puts published,
reproduced and corrected numbers side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

import polars as pl

from lucency.attacks.patch import PatchTrigger
from lucency.attacks.survival import measure_survival
from lucency.data.preprocess import InputContract, ResizeKernel
from lucency.errors import DataError
from lucency.evaluate.seeds import mean_over_seeds, over_seeds
from lucency.experiment.films import load, poison_films, read_clean
from lucency.manifest import read_json, versions
from lucency.paper.explanations import pointing
from lucency.paper.mixed import mixed_scores
from lucency.paper.protocol import (
    CORRECTED,
    CROP,
    EPSILONS,
    NATIVE,
    NETWORK,
    PITFALLS,
    PUBLISHED,
    SIZES,
    Grid,
    main_sweep,
    pitfall_sweep,
)
from lucency.paper.verdict import claims, give_verdict
from lucency.progress import Progress, silent
from lucency.records import Estimate, Rate
from lucency.report.paper_page import render_paper
from lucency.report.paper_record import (
    MixedRow,
    MixedScore,
    PaperReport,
    PitfallRow,
    PointingRow,
    SurvivalRow,
    VariantPoint,
)
from lucency.report.sweep_record import AxisValue, Point, RunRecord, SweepReport
from lucency.runs import RunFolder, digest, read_manifest, write_json, write_text, write_via
from lucency.sweep import SweepSettings, sweep
from lucency.sweep.jobs import RECORD, Job
from lucency.sweep.plan import Plan, plan
from lucency.sweep.pool import Pool
from lucency.sweep.settings import expand
from lucency.sweep.tables import performance
from lucency.victims.victim import default_device

KERNELS: tuple[ResizeKernel, ...] = get_args(ResizeKernel)
GRID, ONE_AT_A_TIME = "grid", "pitfalls"
"""Folders of the two sweeps."""
MIXED_SIZES = (3, 4)

Open = Callable[[], AbstractContextManager[Pool]]


def reproduce(
    out: Path,
    pool: Open,
    *,
    data: Path | None = None,
    grid: Grid = "small",
    corrected: Collection[str] = (),
    command: str = "",
    device: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Carry out the published experiment, on ChestX-ray14 under `data` or on synthetic films if it
    is None, and write the page and its tables into `out`, which is returned.

    corrected: the pitfalls that the corrected variant corrects. Continues where it was killed, as a
    sweep does. Raises LucencyError, and DataError if a run fails.
    """
    device = device or default_device().type
    main, single = main_sweep(data, grid, corrected), pitfall_sweep(data, grid)
    with RunFolder.at(out) as folder:
        places = {GRID: out / GRID, ONE_AT_A_TIME: out / ONE_AT_A_TIME}
        for name, settings in ((GRID, main), (ONE_AT_A_TIME, single)):
            sweep(
                settings,
                Path(),
                places[name],
                pool,
                file=name,
                sweep_toml=settings.model_dump_json(indent=2),
                command=command,
                device=device,
                progress=progress,
            )
        reports = {name: _complete(place) for name, place in places.items()}
        identity = digest([report.digest for report in reports.values()])
        if folder.finished() and read_manifest(out).extra.get("identity") == identity:
            return out
        folder.clear(keep=tuple(places))
        planned = {
            name: _planned(settings, places[name], device)
            for name, settings in ((GRID, main), (ONE_AT_A_TIME, single))
        }
        points = _variant_points(reports[GRID].points, planned[GRID])
        table = pl.DataFrame([_row(point) for point in points], infer_schema_length=None)
        write_via(folder.path("grid.parquet"), table.write_parquet)
        with progress("Looking where the maps point", 2) as advance:
            maps = tuple(
                _pointing(planned[ONE_AT_A_TIME], variant, advance)
                for variant in (PUBLISHED, CORRECTED)
            )
        report = _report(reports, planned, points, maps, identity, command, grid, data)
        write_json(folder.path("report.json"), report)
        write_text(folder.path("report.html"), render_paper(out))
        folder.finish(device=device, extra={"identity": identity})
        return out


def survival_rows() -> tuple[SurvivalRow, ...]:
    """Pitfall P1 in the published geometry, by every resize kernel."""
    rows = []
    for size in SIZES:
        found = {
            kernel: measure_survival(
                PatchTrigger(size_px=size),
                InputContract(size=NETWORK, crop=CROP, resize=kernel),
                (NATIVE, NATIVE),
                (0.0, 0.0),
            )
            for kernel in KERNELS
        }
        rows.append(
            SurvivalRow(
                native_px=size,
                pixels={kernel: left.pixels for kernel, left in found.items()},
                max_change={kernel: left.max_change for kernel, left in found.items()},
            )
        )
    return tuple(rows)


def _complete(folder: Path) -> SweepReport:
    report = read_json(folder / "report.json", SweepReport)
    if report.failed:
        first = report.failed[0]
        raise DataError(
            f"Every run of {folder} must succeed, but {len(report.failed)} failed; the first, "
            f"{first.image}: {first.reason}"
        )
    return report


def _planned(settings: SweepSettings, folder: Path, device: str) -> Plan:
    cells = expand(settings, Path(), folder.name)
    return plan(cells, folder.absolute(), device, settings.keep_models)


def _variant_points(points: Sequence[Point], planned: Plan) -> tuple[VariantPoint, ...]:
    """The sweep's points with what the published experiment read off them."""
    found = []
    for point in points:
        jobs = _jobs(planned, point.axes)
        records = [read_json(job.folder / RECORD, RunRecord) for job in jobs]
        attack = jobs[0].settings.attack
        clean, infected = (
            [performance(record, "backdoored", s) for record in records] for s in ("NN", "TT")
        )
        variant, _, rest = str(point.axes["case"]).partition(", ")
        found.append(
            VariantPoint(
                variant=variant,
                protocol=attack.protocol,
                share=float(rest.split()[-1]),
                size_px=int(point.axes["attack.trigger.size_px"]),
                place=str(point.axes["attack.trigger.place"]),
                point=point,
                above_06=over_seeds([_success(record, "0.6") for record in records]),
                above_09=over_seeds([_success(record, "0.9") for record in records]),
                micro_clean=over_seeds([p.micro_auroc for p in clean]),
                micro_clean_floor=mean_over_seeds([p.micro_floor for p in clean]),
                micro_infected=over_seeds([p.micro_auroc for p in infected]),
                micro_infected_floor=mean_over_seeds([p.micro_floor for p in infected]),
            )
        )
    return tuple(found)


def _success(record: RunRecord, operating_point: str) -> Rate:
    return next(s.backdoored for s in record.attack_success if s.operating_point == operating_point)


def _jobs(planned: Plan, axes: Mapping[str, AxisValue]) -> list[Job]:
    """The runs of one point, a seed each."""
    return [job for cell, job in zip(planned.cells, planned.jobs, strict=True) if cell.axes == axes]


def _mixed(points: Sequence[VariantPoint], planned: Plan) -> tuple[MixedRow, ...]:
    """At the centre, with the largest share of poison in the small grid."""
    rows = []
    for found in points:
        if (found.protocol, found.share, found.place) != ("replace", 0.2, "center"):
            continue
        if found.size_px not in MIXED_SIZES:
            continue
        each = [
            mixed_scores(
                job.folder / "predictions.parquet", job.settings.attack.label, job.settings.seed
            )
            for job in _jobs(planned, found.point.axes)
        ]
        scores = tuple(
            MixedScore(
                epsilon=epsilon,
                micro_auroc=mean_over_seeds([s[i].micro_auroc for s in each]),
                micro_floor=mean_over_seeds([s[i].micro_floor for s in each]),
                macro_auroc=mean_over_seeds([s[i].macro_auroc for s in each]),
            )
            for i, epsilon in enumerate(EPSILONS)
        )
        rows.append(MixedRow(variant=found.variant, size_px=found.size_px, scores=scores))
    return tuple(rows)


def _pointing(planned: Plan, variant: str, advance: Callable[[int], None]) -> PointingRow:
    """On the network of the first seed."""
    job = _jobs(planned, {"case": variant})[0]
    films = poison_films(job.settings, read_clean(job.settings, load(job.settings), silent), silent)
    scores = pointing(job.settings, films, job.folder / "models/backdoored", job.settings.seed)
    advance(1)
    return PointingRow(variant=variant, scores=tuple(scores))


def _report(
    reports: dict[str, SweepReport],
    planned: dict[str, Plan],
    points: tuple[VariantPoint, ...],
    maps: tuple[PointingRow, ...],
    identity: str,
    command: str,
    grid: Grid,
    data: Path | None,
) -> PaperReport:
    single = {str(point.axes["case"]): point for point in reports[ONE_AT_A_TIME].points}
    survival = survival_rows()
    pitfalls = tuple(
        PitfallRow(
            id=p.id,
            words=p.words,
            remedy=p.remedy,
            point=single.get(f"{PUBLISHED} without {p.id}"),
        )
        for p in PITFALLS
    )
    settings = planned[GRID].jobs[0].settings
    return PaperReport(
        digest=identity,
        command=command,
        data="synthetic films" if data is None else "ChestX-ray14",
        films=f"{settings.input.size} px at the network, central crop {settings.input.crop:.0%}, "
        f"{settings.victim.architecture}, at most {settings.victim.epochs} epochs",
        grid=grid,
        seeds=reports[GRID].seeds,
        software=versions(),
        device=reports[GRID].device,
        verdict=give_verdict(points, single, survival, maps, is_real=data is not None),
        claims=claims(points, maps),
        survival=survival,
        axes=reports[GRID].axes,
        points=points,
        as_published=single[PUBLISHED],
        all_corrected=single[CORRECTED],
        pitfalls=pitfalls,
        mixed=_mixed(points, planned[GRID]),
        pointing=maps,
    )


def _row(found: VariantPoint) -> dict[str, object]:
    row: dict[str, object] = {
        name: value for name, value in found if name != "point" and not isinstance(value, Estimate)
    }
    estimates = {
        "above_06": found.above_06,
        "above_09": found.above_09,
        "micro_clean": found.micro_clean,
        "micro_infected": found.micro_infected,
        "success": found.point.success,
        "success_clean_model": found.point.success_clean_model,
        "auroc": found.point.auroc,
        "auroc_clean_model": found.point.auroc_clean_model,
        "auroc_difference": found.point.difference,
    }
    for name, value in estimates.items():
        row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return row | {"network_px": found.point.network_px, "n_poisoned": found.point.n_poisoned}
