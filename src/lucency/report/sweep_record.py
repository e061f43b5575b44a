"""What a sweep says: the record of one of its runs, `run.json`, and of all, `report.json`.

Nothing here depends on the clock, on the number of workers or on the order in which runs ended.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import (
    AttackSuccess,
    Estimate,
    Performance,
    Record,
    Rejected,
    TriggerVisibility,
)
from lucency.report.record import AttackSummary, Verdict, VictimSummary

RUN_SCHEMA: Literal["lucency/sweep-run/1"] = "lucency/sweep-run/1"
SCHEMA: Literal["lucency/sweep/1"] = "lucency/sweep/1"

AxisValue = str | int | float | bool


class RunRecord(Record):
    """One run of a sweep: what was done and what came of it.

    macro_difference: macro AUROC on clean films, backdoored minus clean model, paired by patient.
    """

    schema_: Literal["lucency/sweep-run/1"] = Field(default=RUN_SCHEMA, alias="schema")
    digest: str
    seed: int
    software: dict[str, str]
    device: str
    threads: int
    findings: tuple[str, ...]
    attack: AttackSummary
    visibility: TriggerVisibility
    victims: tuple[VictimSummary, ...]
    performances: tuple[Performance, ...]
    macro_difference: Estimate
    attack_success: tuple[AttackSuccess, ...]


class Axis(Record):
    """What was varied, and the values that it took."""

    name: str
    values: tuple[AxisValue, ...]


class Point(Record):
    """One point of the grid, over its seeds. All rates at 95 % specificity on clean validation.

    n_poisoned, poison_rate, share_of_target_positives, network_px: means over seeds, the last of
    the pixels that the trigger changes at the network's input (`None` where it is not defined).
    success: on triggered films that the attacker has to move; success_clean_model: the clean model
    on the same films; untriggered: the backdoored model on them without the trigger.
    auroc, auroc_clean_model: macro AUROC on clean films; difference: the first minus the second.
    collateral: the largest loss of AUROC among the other findings that at least 20 films have, on
    triggered films with true labels, clean minus backdoored model; collateral_finding: whose.
    """

    axes: dict[str, AxisValue]
    seeds: tuple[int, ...]
    trigger: str
    place: str
    label_edit: str
    target: str
    n_poisoned: float
    n_covers: float
    poison_rate: float
    share_of_target_positives: float | None
    network_px: float | None
    psnr_native_db: float | None
    ssim_native: float | None
    psnr_network_db: float | None
    ssim_network: float | None
    success: Estimate
    success_clean_model: Estimate
    untriggered: Estimate
    auroc: Estimate
    auroc_clean_model: Estimate
    difference: Estimate
    collateral: Estimate
    collateral_finding: str | None


class SweepReport(Record):
    """All that a sweep measured. failed: runs that could not be carried out, and why."""

    schema_: Literal["lucency/sweep/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    digest: str
    command: str
    sweep_toml: str
    software: dict[str, str]
    device: str
    threads: int
    verdict: Verdict
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    n_runs: int
    n_clean_models: int
    findings: tuple[str, ...]
    points: tuple[Point, ...]
    failed: tuple[Rejected, ...]
