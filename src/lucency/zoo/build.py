"""From `ZOO.toml` to models with a known truth: trained as the runs of a sweep, and as resumable.

Every model lies in the folder of the run that made it, named by all that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lucency.attacks.ledger import plain
from lucency.attacks.placed import PlacedTrigger
from lucency.data.inputs import as_stored, read_inputs
from lucency.detect.images.reference import one_film_a_patient
from lucency.errors import DataError
from lucency.experiment.films import load
from lucency.experiment.settings import ExperimentSettings
from lucency.manifest import read_json, versions
from lucency.progress import Progress, silent
from lucency.records import Box, Decoded, Model, Rejected
from lucency.report.sweep_record import RunRecord
from lucency.runs import RunFolder, digest, read_manifest, write_json, write_text, write_via
from lucency.sweep.jobs import RECORD, THREADS, Job, config_of
from lucency.sweep.plan import CLEAN, RUNS, Plan, plan
from lucency.sweep.pool import Pool
from lucency.sweep.run import Failed, do_jobs
from lucency.sweep.tables import main_success, network_px, performance
from lucency.victims.victim import default_device
from lucency.zoo.record import Member, Planted, ZooReport
from lucency.zoo.settings import ZooSettings, cells_of
from lucency.zoo.table import as_markdown

ZOO, FILMS = "zoo.json", "films"


def build_zoo(
    settings: ZooSettings,
    base: Path,
    out: Path,
    pool: Callable[[], AbstractContextManager[Pool]],
    *,
    file: str = "ZOO.toml",
    command: str = "",
    device: str | None = None,
    data: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Train every model and its clean twin, write `zoo.json` and `zoo.md` into `out`, return it.

    Arguments as `sweep` has them. Continues where it was killed. A model that cannot be trained is
    named, and tried again next time. Raises LucencyError, and DataError if none can be trained.
    """
    cells = cells_of(settings, base, file, data and data.absolute())
    with RunFolder.at(out) as folder:
        planned = plan(cells, out.absolute(), device or default_device().type, keep_models=True)
        identity = digest([[cell.axes for cell in cells], [job.identity for job in planned.jobs]])
        if folder.finished() and read_manifest(out).extra.get("identity") == identity:
            return folder.folder
        folder.clear(keep=(CLEAN, RUNS, FILMS))
        failed = do_jobs(planned, pool, progress)
        report = _report(settings, planned, failed, folder.folder, command)
        write_json(folder.path(ZOO), report)
        write_text(folder.path("zoo.md"), as_markdown(report))
        if not failed:
            folder.finish(
                config=settings,
                device=report.device,
                threads=THREADS,
                extra={"identity": identity},
            )
        return folder.folder


def describe_zoo(folder: Path) -> str:
    """What was built, for a terminal."""
    report = read_json(folder / ZOO, ZooReport)
    backdoored = sum(member.planted is not None for member in report.members)
    lines = [f"{len(report.members)} models, {backdoored} of them backdoored."]
    lines += [f"Failed: {each.image}: {each.reason}" for each in report.failed]
    return "\n".join(lines)


def _report(
    settings: ZooSettings, planned: Plan, failed: Failed, folder: Path, command: str
) -> ZooReport:
    members: dict[str, Member] = {}
    device = ""
    for cell, job in zip(planned.cells, planned.jobs, strict=True):
        if job in failed:
            continue
        record = read_json(job.folder / RECORD, RunRecord)
        device = record.device
        for member in _members(str(cell.axes["case"]), job, record, folder):
            members.setdefault(member.folder, member)
    if not members:
        job, why = next(iter(failed.items()))
        raise DataError(
            f"At least one model of {settings.name} must be trained, got none of "
            f"{len(planned.jobs)}; the first, {job.folder}: {why}"
        )
    return ZooReport(
        name=settings.name,
        command=command,
        software=versions(),
        device=device,
        members=tuple(members.values()),
        failed=tuple(
            Rejected(image=cell.title, reason=failed[job])
            for cell, job in zip(planned.cells, planned.jobs, strict=True)
            if job in failed
        ),
    )


def _members(name: str, job: Job, record: RunRecord, folder: Path) -> tuple[Member, Member]:
    """The clean twin and the backdoored model."""
    settings, attack, success = job.settings, record.attack, main_success(record)
    if job.clean is None:
        raise ValueError("a run has a clean twin")
    network = f"{settings.victim.architecture}, {settings.input.size} px"
    films = _write_films(settings, folder)

    def member(model: Model, title: str, place: Path, planted: Planted | None) -> Member:
        return Member(
            name=title,
            folder=(place / "models" / model).relative_to(folder.absolute()).as_posix(),
            films=films,
            architecture=settings.victim.architecture,
            size=settings.input.size,
            seed=settings.seed,
            planted=planted,
            macro_auroc=performance(record, model, "NN").macro_auroc,
        )

    planted = Planted(
        finding=attack.target,
        direction=attack.direction,
        kind=settings.attack.trigger.kind,
        trigger=f"{attack.trigger}, {attack.place}",
        poison_rate=attack.poison_rate,
        network_px=network_px(record),
        box=_box(settings),
        success=success.backdoored,
        success_clean_model=success.clean_model,
    )
    clean_name = f"clean, seed {settings.seed}, {network}"
    return (
        member("clean", clean_name, job.clean, None),
        member("backdoored", name, job.folder, planted),
    )


def _write_films(settings: ExperimentSettings, folder: Path) -> str:
    """The reference films, once for each set of them; where they lie below the folder."""
    name = digest(config_of(settings, {"seed", "data", "split", "input"}))[:12]
    path = folder / FILMS / f"{name}.safetensors"
    if not path.exists():
        radiographs = load(settings)
        rows = radiographs.rows("reference")
        inputs, _ = read_inputs(radiographs, rows, plain(settings.input), settings.input)
        patients = [radiographs.patient_ids[row] for row in inputs.rows]
        films = inputs.images[one_film_a_patient(patients, settings.seed)]
        write_via(path, lambda p: save_file({FILMS: np.ascontiguousarray(films)}, p))
    return path.relative_to(folder).as_posix()


def _box(settings: ExperimentSettings) -> Box | None:
    """Where a trigger with a fixed place lies at the network, on films of the first one's shape."""
    trigger, contract = settings.attack.trigger, settings.input
    if not isinstance(trigger, PlacedTrigger) or trigger.is_random:
        return None
    shape = _native_shape(settings)
    native = trigger.box(contract.window(shape), shape, (0.0, 0.0))
    return contract.to_network_box(native, shape)


def _native_shape(settings: ExperimentSettings) -> tuple[int, int]:
    radiographs = load(settings)
    for read in radiographs.images.read(range(len(radiographs)), as_stored):
        if isinstance(read, Decoded):
            return read.native_shape
    raise DataError("At least one film that can be read was expected, got none.")
