"""What a reproduction of the published experiment says: the typed content of its `report.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import Estimate, Rate, Record
from lucency.report.record import Verdict
from lucency.report.sweep_record import Axis, Point

SCHEMA: Literal["lucency/paper/1"] = "lucency/paper/1"


class SurvivalRow(Record):
    """Pixels of a centred black square that reach the network's input. native_px: its side;
    pixels: resize kernel -> how many; max_change: kernel -> the largest, fraction of the range."""

    native_px: int
    pixels: dict[str, int]
    max_change: dict[str, float]


class MixedScore(Record):
    """A test set of which a share `epsilon` is triggered and has the attacker's labels."""

    epsilon: float
    micro_auroc: float | None
    micro_floor: float | None
    macro_auroc: float | None


class MixedRow(Record):
    """The same, averaged over seeds, of one variant and trigger size."""

    variant: str
    size_px: int
    scores: tuple[MixedScore, ...]


class PointingScore(Record):
    """Triggered films on which the strongest cell of a map is within 2 px of the trigger."""

    method: str
    cells: str | None
    hits: Rate


class PointingRow(Record):
    """The scores of every method on one backdoored network."""

    variant: str
    scores: tuple[PointingScore, ...]


class ClaimRow(Record):
    """A claim of the paper beside what was measured here, as published and corrected."""

    claim: str
    published: str
    reproduced: str
    corrected: str


class PitfallRow(Record):
    """A pitfall and its remedy; point: the sweep's point at which it alone is corrected (None for
    one that lies in how the experiment was read)."""

    id: str
    words: str
    remedy: str
    point: Point | None


class VariantPoint(Record):
    """A point of the main sweep. thresholds: success above 0.6 and above 0.9, as published; micro:
    micro AUROC on clean films and on triggered ones with the attacker's labels, with their
    floors."""

    variant: str
    protocol: str
    share: float
    size_px: int
    place: str
    point: Point
    above_06: Estimate
    above_09: Estimate
    micro_clean: Estimate
    micro_clean_floor: float | None
    micro_infected: Estimate
    micro_infected_floor: float | None


class PaperReport(Record):
    """All of a reproduction."""

    schema_: Literal["lucency/paper/1"] = Field(default=SCHEMA, alias="schema")
    digest: str
    command: str
    data: str
    films: str
    grid: str
    seeds: tuple[int, ...]
    software: dict[str, str]
    device: str
    verdict: Verdict
    claims: tuple[ClaimRow, ...]
    survival: tuple[SurvivalRow, ...]
    axes: tuple[Axis, ...]
    points: tuple[VariantPoint, ...]
    as_published: Point
    all_corrected: Point
    pitfalls: tuple[PitfallRow, ...]
    mixed: tuple[MixedRow, ...]
    pointing: tuple[PointingRow, ...]
