"""`ZOO.toml`: what is common to a pool of models, and the attack on each."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, JsonValue, model_validator

from lucency.records import Record
from lucency.sweep.settings import Case, Cell, Seed, SweepSettings, expand


class ZooModel(Record):
    """`[[models]]`: a backdoored model and its clean twin, of the same films, network and seed.

    settings: dotted key -> value, on top of [experiment]."""

    name: str = Field(min_length=1, max_length=100)
    seed: Seed
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class ZooSettings(Record):
    """A pool of models, half of them clean. experiment: what EXPERIMENT.toml holds, but for what
    differs between models."""

    name: str = Field(min_length=1, max_length=200)
    experiment: dict[str, JsonValue]
    models: tuple[ZooModel, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> ZooSettings:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("the names of [[models]] must differ from each other")
        return self


def cells_of(zoo: ZooSettings, base: Path, file: str, data: Path | None = None) -> tuple[Cell, ...]:
    """A cell a backdoored model, in the order of the file; data: where the films lie, in place of
    [data] path. Raises ConfigError for settings that are none."""
    return tuple(
        cell
        for model in zoo.models
        for cell in expand(
            SweepSettings(
                name=zoo.name,
                seeds=(model.seed,),
                experiment=zoo.experiment,
                cases=(Case(name=model.name, settings=model.settings),),
            ),
            base,
            file,
            data,
        )
    )
