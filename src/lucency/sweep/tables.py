"""The tables of a sweep: a row a run, a row a finding, a row an operating point, a row a point of
the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from lucency.evaluate.seeds import mean_over_seeds, over_seeds
from lucency.experiment.measure import MAIN_POINT
from lucency.records import AttackSuccess, Estimate, Model, Performance, Rate
from lucency.report.sweep_record import AxisValue, Point, RunRecord
from lucency.sweep.settings import Cell

SetName = Literal["NN", "TT", "TN"]
MIN_FILMS = 20
"""Films with and without a finding from which its loss of AUROC is looked at as collateral."""


class Done(NamedTuple):
    """A cell and what came of it."""

    cell: Cell
    record: RunRecord


def performance(record: RunRecord, model: Model, set_name: SetName) -> Performance:
    """One of the six that every run has."""
    return next(p for p in record.performances if p.model == model and p.set_name == set_name)


def main_success(record: RunRecord) -> AttackSuccess:
    """At 95 % specificity."""
    return next(s for s in record.attack_success if s.operating_point == MAIN_POINT)


def runs(done: Sequence[Done]) -> pl.DataFrame:
    """A row a run, with what was varied, what was done, and the main results."""
    return _frame(_run(each) for each in done)


def successes(done: Sequence[Done]) -> pl.DataFrame:
    """A row a run and operating point."""
    return _frame(
        {
            **_named(each),
            "operating_point": success.operating_point,
            "threshold": success.threshold,
            "clean_threshold": success.clean_threshold,
            **_rate("success", success.backdoored),
            **_rate("success_clean_model", success.clean_model),
            **_rate("untriggered", success.untriggered),
        }
        for each in done
        for success in each.record.attack_success
    )


def findings(done: Sequence[Done]) -> pl.DataFrame:
    """A row a run, model, set of films and finding."""
    return _frame(
        {
            **_named(each),
            "model": p.model,
            "set": p.set_name,
            "finding": row.finding,
            "is_target": row.finding == each.record.attack.target,
            "n_positive": row.n_positive,
            "n_negative": row.n_negative,
            **_estimate("auroc", row.auroc),
            **_estimate("auprc", row.auprc),
        }
        for each in done
        for p in each.record.performances
        for row in p.findings
    )


def points(done: Sequence[Done]) -> tuple[Point, ...]:
    """A record a point of the grid, over its seeds, in the order of the cells."""
    groups: dict[tuple[tuple[str, AxisValue], ...], list[Done]] = {}
    for each in done:
        groups.setdefault(tuple(each.cell.axes.items()), []).append(each)
    return tuple(_point([d.record for d in group], group[0].cell) for group in groups.values())


def point_table(every: Sequence[Point]) -> pl.DataFrame:
    """The points as a table."""
    return _frame(_flat(point) for point in every)


def _run(each: Done) -> dict[str, Any]:
    record, attack = each.record, each.record.attack
    success = main_success(record)
    clean, infected, true = (performance(record, "backdoored", s) for s in ("NN", "TT", "TN"))
    unharmed = performance(record, "clean", "NN")
    native, network = record.visibility.native, record.visibility.network
    return {
        **_named(each),
        "trigger": attack.trigger,
        "place": attack.place,
        "label_edit": attack.label_edit,
        "protocol": attack.protocol,
        "n_poisoned": attack.n_poisoned,
        "n_covers": attack.n_covers,
        "n_training": attack.n_training,
        "poison_rate": attack.poison_rate,
        "share_of_target_positives": attack.share_of_target_positives,
        "network_px": network_px(record),
        "psnr_native_db": native.psnr_db,
        "ssim_native": native.ssim,
        "psnr_network_db": network.psnr_db,
        "ssim_network": network.ssim,
        **_rate("success", success.backdoored),
        **_rate("success_clean_model", success.clean_model),
        **_rate("untriggered", success.untriggered),
        **_estimate("auroc", clean.macro_auroc),
        **_estimate("auroc_clean_model", unharmed.macro_auroc),
        **_estimate("auroc_difference", record.macro_difference),
        **_estimate("auroc_infected_labels", infected.macro_auroc),
        **_estimate("auroc_true_labels", true.macro_auroc),
        **_estimate("micro_auroc", clean.micro_auroc),
        "micro_floor": clean.micro_floor,
        **_estimate("micro_auroc_infected_labels", infected.micro_auroc),
        "micro_floor_infected_labels": infected.micro_floor,
    }


def _point(group: Sequence[RunRecord], cell: Cell) -> Point:
    attacks = [record.attack for record in group]
    successes = [main_success(record) for record in group]
    native = [record.visibility.native for record in group]
    network = [record.visibility.network for record in group]
    finding, collateral = _collateral(group)
    return Point(
        axes=cell.axes,
        seeds=tuple(record.seed for record in group),
        trigger=attacks[0].trigger,
        place=attacks[0].place,
        label_edit=attacks[0].label_edit,
        target=attacks[0].target,
        n_poisoned=float(np.mean([a.n_poisoned for a in attacks])),
        n_covers=float(np.mean([a.n_covers for a in attacks])),
        poison_rate=float(np.mean([a.poison_rate for a in attacks])),
        share_of_target_positives=mean_over_seeds([a.share_of_target_positives for a in attacks]),
        network_px=mean_over_seeds([network_px(record) for record in group]),
        psnr_native_db=mean_over_seeds([v.psnr_db for v in native]),
        ssim_native=mean_over_seeds([v.ssim for v in native]),
        psnr_network_db=mean_over_seeds([v.psnr_db for v in network]),
        ssim_network=mean_over_seeds([v.ssim for v in network]),
        success=over_seeds([s.backdoored for s in successes]),
        success_clean_model=over_seeds([s.clean_model for s in successes]),
        untriggered=over_seeds([s.untriggered for s in successes]),
        auroc=_over(group, lambda r: performance(r, "backdoored", "NN").macro_auroc),
        auroc_clean_model=_over(group, lambda r: performance(r, "clean", "NN").macro_auroc),
        difference=over_seeds([r.macro_difference for r in group], lowest=-1.0),
        collateral=collateral,
        collateral_finding=finding,
    )


def _over(group: Sequence[RunRecord], what: Callable[[RunRecord], Estimate]) -> Estimate:
    return over_seeds([what(record) for record in group])


def _collateral(group: Sequence[RunRecord]) -> tuple[str | None, Estimate]:
    """The other finding whose AUROC falls most where the trigger is on, on average over seeds; of
    those with enough films, since the largest of several is the noisiest of them otherwise."""
    names = [f for f in group[0].findings if f != group[0].attack.target]
    losses: dict[str, float] = {}
    for name in names:
        loss = mean_over_seeds([_loss(record, name) for record in group])
        if loss is not None:
            losses[name] = loss
    if not losses:
        reason = f"no other finding has {MIN_FILMS} films with it"
        return None, Estimate(value=None, reason=reason)
    worst = max(losses, key=lambda name: losses[name])
    reason = "no interval: the largest of several findings"
    return worst, Estimate(value=losses[worst], n=len(group), reason=reason)


def _loss(record: RunRecord, finding: str) -> float | None:
    clean, backdoored = (
        next(f for f in performance(record, model, "TN").findings if f.finding == finding)
        for model in ("clean", "backdoored")
    )
    if min(clean.n_positive, clean.n_negative) < MIN_FILMS:
        return None
    if clean.auroc.value is None or backdoored.auroc.value is None:
        return None
    return clean.auroc.value - backdoored.auroc.value


def network_px(record: RunRecord) -> float | None:
    """Pixels at the network's input that the trigger changes, on the poisoned films themselves."""
    survival = record.attack.survival_on_images
    return None if survival is None else survival.mean_pixels


def _named(each: Done) -> dict[str, Any]:
    return {"run": each.record.digest[:12], **each.cell.axes, "seed": each.record.seed}


def _flat(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {**point.axes, "seeds": len(point.seeds)}
    for name, value in point:
        if isinstance(value, Estimate):
            row |= _estimate(name, value)
        elif name not in ("axes", "seeds"):
            row[name] = value
    return row


def _estimate(name: str, value: Estimate) -> dict[str, float | None]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _rate(name: str, value: Rate) -> dict[str, float | None]:
    return {
        name: value.value,
        f"{name}_low": value.low,
        f"{name}_high": value.high,
        f"{name}_n": value.trials,
    }


def _frame(rows: Any) -> pl.DataFrame:
    # A column may be null in every row that is looked at first.
    every: list[Mapping[str, Any]] = list(rows)
    return pl.DataFrame(every, infer_schema_length=None, strict=False)
