"""From the cells of a sweep to its jobs: where each lies, and which clean model it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lucency.experiment.films import load
from lucency.experiment.preflight import check_training
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.stages import identity_of
from lucency.records import Radiographs
from lucency.runs import digest
from lucency.sweep.jobs import OF_CLEAN, OF_RUN, THREADS, Job, config_of
from lucency.sweep.settings import Cell

CLEAN, RUNS = "clean", "runs"
"""Folders of a sweep's folder."""


@dataclass(frozen=True)
class Plan:
    """A job a cell, in their order, and the clean models that they need, each once."""

    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]
    clean: dict[Path, Job]


def plan(cells: Sequence[Cell], folder: Path, device: str, keep_models: bool) -> Plan:
    """Name every job by the digest of what its result depends on. Reads the data sets' tables, and
    no pixel. Raises LucencyError for a data set that cannot be read, or settings that do not suit
    it."""
    tables: dict[str, Radiographs] = {}
    checked: set[str] = set()
    jobs, clean = [], {}
    for cell in cells:
        settings = cell.settings
        radiographs = _table(settings, tables)
        training = digest(config_of(settings, OF_CLEAN))
        if training not in checked:
            check_training(settings, radiographs)
            checked.add(training)
        settings.attack.label.index(radiographs.findings)
        names = {
            kind: identity_of(config_of(settings, keys), radiographs, device, THREADS)
            for kind, keys in ((CLEAN, OF_CLEAN), (RUNS, OF_RUN))
        }
        where = {kind: folder / kind / name[:12] for kind, name in names.items()}
        clean[where[CLEAN]] = Job(settings, where[CLEAN], names[CLEAN], device)
        jobs.append(Job(settings, where[RUNS], names[RUNS], device, where[CLEAN], keep_models))
    return Plan(tuple(cells), tuple(jobs), clean)


def _table(settings: ExperimentSettings, tables: dict[str, Radiographs]) -> Radiographs:
    """Each data set's once a seed."""
    key = digest(config_of(settings, {"seed", "data", "split"}))
    if key not in tables:
        tables[key] = load(settings)
    return tables[key]
