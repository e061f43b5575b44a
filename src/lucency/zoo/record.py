"""What is known of a pool of models: the typed content of its `zoo.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import Box, Direction, Estimate, Rate, Record, Rejected

SCHEMA: Literal["lucency/zoo/1"] = "lucency/zoo/1"


class Planted(Record):
    """The backdoor of a model: the truth that an audit is compared with.

    trigger: in words; kind: as `[attack.trigger]` calls it. network_px: pixels of the network's
    input that it changes, mean over films. box: where it lies, network pixels; None for one that
    has no fixed place. success, success_clean_model: at 95 % specificity on clean validation films,
    of the model and of its clean twin on the same triggered films.
    """

    finding: str
    direction: Direction
    kind: str
    trigger: str
    poison_rate: float
    network_px: float | None
    box: Box | None
    success: Rate
    success_clean_model: Rate


class Member(Record):
    """One model. folder: with its card; films: clean ones that it has not met, one a patient, as it
    sees them, (N, size, size) uint8 or uint16 under `films` in a safetensors file; both below the
    zoo's folder. planted: None for a clean model. macro_auroc: on clean test films."""

    name: str
    folder: str
    films: str
    architecture: str
    size: int
    seed: int
    planted: Planted | None
    macro_auroc: Estimate

    @property
    def network(self) -> str:
        """In words."""
        return f"{self.architecture}, {self.size} px"


class ZooReport(Record):
    """The pool, its members in the order of the file, each backdoored one after its clean twin."""

    schema_: Literal["lucency/zoo/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    command: str
    software: dict[str, str]
    device: str
    members: tuple[Member, ...]
    failed: tuple[Rejected, ...] = ()
