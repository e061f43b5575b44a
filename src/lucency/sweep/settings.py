"""`SWEEP.toml`: one experiment, and what is varied about it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError, model_validator

from lucency.config_faults import sentences, shown
from lucency.errors import ConfigError
from lucency.experiment.settings import ExperimentSettings, with_data
from lucency.records import Record
from lucency.report.sweep_record import AxisValue

MAX_RUNS = 100_000
CASE = "case"
"""The name of the axis that the cases make."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1)]


class Case(Record):
    """`[[cases]]`: settings that are changed together, under one name. settings: dotted key ->
    value, such as "attack.trigger.kind"."""

    name: str = Field(min_length=1, max_length=100)
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class SweepSettings(Record):
    """A grid of runs: every case, with every combination of the grid's values, under every seed.

    experiment: what EXPERIMENT.toml holds, but for what is varied. grid: dotted key -> the values
    that it takes. keep_models: whether the backdoored networks' weights are kept.
    """

    name: str = Field(min_length=1, max_length=200)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    experiment: dict[str, JsonValue]
    cases: tuple[Case, ...] = ()
    grid: dict[str, Values] = Field(default_factory=dict)
    keep_models: bool = False

    @model_validator(mode="after")
    def _each_once(self) -> SweepSettings:
        names = [case.name for case in self.cases]
        for what, values in (("seeds", self.seeds), ("the names of cases", names)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what} must differ from each other")
        if CASE in self.grid or "seed" in self.grid:
            raise ValueError("[grid] must not vary 'seed' or 'case': use seeds and [[cases]]")
        if self.n_runs > MAX_RUNS:
            raise ValueError(f"a sweep must have at most {MAX_RUNS} runs, got {self.n_runs}")
        return self

    @property
    def n_runs(self) -> int:
        n = len(self.seeds) * max(1, len(self.cases))
        for values in self.grid.values():
            n *= len(values)
        return n


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. axes: what was varied -> its value here, as tables and figures show it;
    the seed is in the settings."""

    axes: dict[str, AxisValue]
    settings: ExperimentSettings

    @property
    def title(self) -> str:
        """In words, for progress and errors."""
        varied = ", ".join(f"{key} = {value}" for key, value in self.axes.items())
        return f"{varied}, seed {self.settings.seed}" if varied else f"seed {self.settings.seed}"


def expand(
    sweep: SweepSettings, base: Path, file: str, data: Path | None = None
) -> tuple[Cell, ...]:
    """Every run, in the order of cases, grid and seeds. base: the folder that paths are relative
    to; file: what errors call the sweep; data: where the data lie, in place of [data] path. Raises
    ConfigError for settings that are none."""
    cells = tuple(_cells(sweep, base, file))
    if data is None:
        return cells
    return tuple(Cell(cell.axes, with_data(cell.settings, data, file)) for cell in cells)


def _cells(sweep: SweepSettings, base: Path, file: str) -> Iterator[Cell]:
    for case in sweep.cases or (None,):
        named: dict[str, AxisValue] = {} if case is None else {CASE: case.name}
        for values in itertools.product(*sweep.grid.values()):
            changes = dict(zip(sweep.grid, values, strict=True))
            axes = named | {key: _label(value) for key, value in changes.items()}
            table = deepcopy(sweep.experiment)
            for key, value in ((case.settings if case else {}) | changes).items():
                _put(table, key, deepcopy(value), file)
            for seed in sweep.seeds:
                table["seed"] = seed
                yield Cell(axes, _validated(table, base, f"{file} ({_title(axes)})"))


def _title(axes: Mapping[str, AxisValue]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in axes.items()) or "[experiment]"


def _put(table: dict[str, JsonValue], key: str, value: JsonValue, file: str) -> None:
    """Set the value at a dotted key, making the tables on the way."""
    *way, last = key.split(".")
    here = table
    for step in way:
        inner = here.setdefault(step, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{file}: {shown(key)} must lead through tables of [experiment], but "
                f"{shown(step)} is none; correct the key."
            )
        here = inner
    here[last] = value


def _validated(table: dict[str, JsonValue], base: Path, file: str) -> ExperimentSettings:
    try:
        return ExperimentSettings.model_validate_json(
            json.dumps(table), strict=True, context={"base": base}
        )
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError(sentences(faults, ExperimentSettings, file)) from error


def _label(value: JsonValue) -> AxisValue:
    """A value as tables and figures show it: itself, or of a table its kind, or its JSON."""
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict) and isinstance(value.get("kind"), str) and len(value) == 1:
        return str(value["kind"])
    return json.dumps(value, sort_keys=True)
