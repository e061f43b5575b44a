"""`lucency sweep`: from a grid of settings to tables, figures and a page.

Every run lies in a folder that is named by the digest of all that its result depends on. So a sweep
that was killed goes on, one whose grid was widened does only what is new, and the tables are the
same bytes however often it was stopped, in whatever order runs ended and whoever did them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lucency.errors import DataError, IntegrityError
from lucency.manifest import versions
from lucency.progress import Progress, silent
from lucency.records import Rejected
from lucency.report.sweep_page import render_sweep
from lucency.report.sweep_record import Axis, RunRecord, SweepReport
from lucency.report.sweep_table import as_markdown
from lucency.runs import (
    RunFolder,
    digest,
    read_json,
    read_manifest,
    verify,
    write_json,
    write_text,
    write_via,
)
from lucency.sweep import tables
from lucency.sweep.jobs import RECORD, THREADS, Job
from lucency.sweep.plan import CLEAN, RUNS, Plan, plan
from lucency.sweep.pool import Pool
from lucency.sweep.settings import Cell, SweepSettings, expand
from lucency.sweep.tables import Done
from lucency.sweep.verdict import give_verdict
from lucency.victims.victim import default_device

Failed = dict[Job, str]
"""Job -> why it failed."""


def sweep(
    settings: SweepSettings,
    base: Path,
    out: Path,
    pool: Callable[[], AbstractContextManager[Pool]],
    *,
    file: str = "SWEEP.toml",
    sweep_toml: str = "",
    command: str = "",
    device: str | None = None,
    data: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Carry out every run of the grid, write tables, figures and page into `out`, and return it.

    base: the folder that paths in the settings are relative to. pool: who does the jobs. device:
    kind that they are computed on (None = this machine's). data: where the data lie, in place of
    what the settings say.

    A run that fails is named in the report, and is tried again when the sweep is started again; the
    folder has no manifest as long as there is one. Raises LucencyError for settings that cannot be
    carried out, a folder in use or one that cannot be written, and if every run fails.
    """
    cells = expand(settings, base, file, data and data.absolute())
    with RunFolder.at(out) as folder:
        planned = plan(cells, out.absolute(), device or default_device().type, settings.keep_models)
        identity = digest(
            {
                "name": settings.name,
                "runs": [
                    [cell.axes, job.identity] for cell, job in zip(cells, planned.jobs, strict=True)
                ],
                "keep_models": settings.keep_models,
            }
        )
        if folder.finished() and _identity(folder) == identity:
            return folder.folder
        # What runs there are says each for itself, by its own manifest.
        folder.clear(keep=(CLEAN, RUNS))
        failed = do_jobs(planned, pool, progress)
        report = _write(settings, planned, failed, folder, identity, sweep_toml, command)
        if not failed:
            folder.finish(
                config=settings,
                device=report.device,
                threads=THREADS,
                extra={"identity": identity},
            )
        return folder.folder


def _identity(folder: RunFolder) -> object:
    return read_manifest(folder.folder).extra.get("identity")


def do_jobs(
    planned: Plan, pool: Callable[[], AbstractContextManager[Pool]], progress: Progress
) -> Failed:
    """Do every job that is not done, each clean model before the runs that need it, and say which
    runs failed."""
    failed: Failed = {}
    waiting: dict[Path, list[Job]] = defaultdict(list)
    to_do = [job for job in dict.fromkeys(planned.jobs) if not _is_done(job.folder)]
    with progress("Runs", len(set(planned.jobs))) as advance:
        advance(len(set(planned.jobs)) - len(to_do))
        if not to_do:
            return failed
        with pool() as workers:
            under_way = 0
            for job in to_do:
                waiting[_needed(job)].append(job)
            for clean in waiting:
                workers.submit(planned.clean[clean])
                under_way += 1
            while under_way:
                ended = workers.next()
                under_way -= 1
                if ended.job.clean is not None:
                    advance(1)
                if ended.error is not None:
                    failed[ended.job] = ended.error
                if ended.job.clean is None:
                    for job in waiting[ended.job.folder]:
                        if ended.error is None:
                            workers.submit(job)
                            under_way += 1
                        else:
                            failed[job] = f"Its clean model could not be trained: {ended.error}"
                            advance(1)
    return {job: why for job, why in failed.items() if job.clean is not None}


def _needed(job: Job) -> Path:
    if job.clean is None:
        raise ValueError("a clean model needs none")
    return job.clean


def _is_done(folder: Path) -> bool:
    """Whether the folder is a finished run, whole; nobody else writes into it."""
    try:
        return not verify(folder)
    except IntegrityError:
        return False


def _write(
    settings: SweepSettings,
    planned: Plan,
    failed: Failed,
    folder: RunFolder,
    identity: str,
    sweep_toml: str,
    command: str,
) -> SweepReport:
    done = [
        Done(cell, read_json(job.folder / RECORD, RunRecord))
        for cell, job in zip(planned.cells, planned.jobs, strict=True)
        if job not in failed
    ]
    if not done:
        job, why = next(iter(failed.items()))
        raise DataError(
            f"At least one run of the sweep must succeed, got none of {len(planned.jobs)}; the "
            f"first, {job.folder}: {why}"
        )
    for name, table in (
        ("runs", tables.runs(done)),
        ("success", tables.successes(done)),
        ("findings", tables.findings(done)),
    ):
        write_via(folder.path(f"{name}.parquet"), table.write_parquet)
    points = tables.points(done)
    write_via(folder.path("points.parquet"), tables.point_table(points).write_parquet)
    first = done[0].record
    axes = _axes(planned.cells)
    report = SweepReport(
        name=settings.name,
        digest=identity,
        command=command,
        sweep_toml=sweep_toml,
        software=versions(),
        device=first.device,
        threads=THREADS,
        verdict=give_verdict(axes, points, len(settings.seeds), len(failed)),
        axes=axes,
        seeds=settings.seeds,
        n_runs=len(planned.jobs),
        n_clean_models=len(planned.clean),
        findings=first.findings,
        points=points,
        failed=tuple(
            Rejected(image=cell.title, reason=failed[job])
            for cell, job in zip(planned.cells, planned.jobs, strict=True)
            if job in failed
        ),
    )
    write_json(folder.path("report.json"), report)
    write_text(folder.path("points.md"), as_markdown(report))
    write_text(folder.path("report.html"), render_sweep(folder.folder))
    return report


def _axes(cells: tuple[Cell, ...]) -> tuple[Axis, ...]:
    """What was varied, with its values in the order in which they come."""
    names = cells[0].axes
    return tuple(
        Axis(name=name, values=tuple(dict.fromkeys(cell.axes[name] for cell in cells)))
        for name in names
    )
