"""The numbers that a reader looks for first, each beside what it has to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lucency.records import AttackSuccess, DetectionScore, Estimate, Rate
from lucency.report.numbers import (
    UNDEFINED,
    amount,
    count,
    difference,
    fraction,
    interval,
    p_number,
    percent,
    share,
)
from lucency.report.record import AttackSummary, RunReport

HEADLINE_POINT = "specificity-0.95"
HEADLINE_DETECTOR = "composite"
_NOT_MEASURED = "the run did not measure it"
_NO_RATE = Rate(successes=0, trials=0, value=None, reason=_NOT_MEASURED)
_NO_ESTIMATE = Estimate(value=None, reason=_NOT_MEASURED)


class Tile(NamedTuple):
    """One key figure. `value` is None where it is undefined, and `spread` then says why."""

    name: str
    value: str | None
    spread: str
    beside: tuple[str, ...] = ()


def key_figures(report: RunReport) -> tuple[Tile, ...]:
    """Return the tiles in reading order: damage, attack, detection, false alarms."""
    scores = {
        score.over: score
        for score in report.detection
        if score.detector == headline_detector(report.detection) and score.model == "backdoored"
    }
    found, successful = scores.get("all"), scores.get("successful")
    return (
        _clean_auroc(report),
        _attack_success(headline_success(report)),
        _survival(report.attack),
        _estimate_tile(
            "Detection AUROC", _auroc(found), "images", ("successful only", _auroc(successful))
        ),
        _rate_tile(
            "Detected at 1\N{NO-BREAK SPACE}% FPR",
            _tpr(found),
            (("successful only", _tpr(successful)),),
        ),
        _rate_tile("Trigger located", _hit(found), (("successful only", _hit(successful)),)),
        _false_alarms(report),
        Tile(
            "Smallest possible p",
            p_number(report.reference.min_p),
            f"from {count(report.reference.n_calibration)} clean reference films",
            ("no image can score lower",),
        ),
    )


def headline_detector(scores: Sequence[DetectionScore]) -> str:
    """Return the detector that decides: the composite, or else the last one that was scored."""
    names = [score.detector for score in scores]
    return HEADLINE_DETECTOR if HEADLINE_DETECTOR in names or not names else names[-1]


def headline_success(report: RunReport) -> AttackSuccess | None:
    """Return the attack's success on its own target at 95 % specificity."""
    for row in report.attack_success:
        aimed = (row.finding, row.direction) == (report.attack.target, report.attack.direction)
        if row.operating_point == HEADLINE_POINT and aimed:
            return row
    return None


def _clean_auroc(report: RunReport) -> Tile:
    clean = {p.model: p.macro_auroc for p in report.performances if p.set_name == "NN"}
    tile = _estimate_tile(
        "Clean macro AUROC",
        clean.get("backdoored", _NO_ESTIMATE),
        "findings",
        ("clean model", clean.get("clean", _NO_ESTIMATE)),
    )
    return tile._replace(beside=(*tile.beside, f"difference {difference(report.macro_difference)}"))


def _attack_success(row: AttackSuccess | None) -> Tile:
    tile = _rate_tile(
        "Attack success",
        row.backdoored if row else _NO_RATE,
        (
            ("clean model", row.clean_model if row else _NO_RATE),
            ("no trigger", row.untriggered if row else _NO_RATE),
        ),
    )
    return tile._replace(beside=("at 95\N{NO-BREAK SPACE}% specificity", *tile.beside))


def _survival(attack: AttackSummary) -> Tile:
    name, survival, spread = "Trigger, file → network", attack.survival, attack.survival_over_places
    vanished = (f"vanishes at {percent(spread.share_vanished)} of places",) if spread else ()
    if survival is not None:
        value = f"{count(survival.native_px)} → {count(survival.pixels)} px"
        change = f"changed by {share(survival.max_change)} of the grey range"
        return Tile(name, value, change, vanished)
    if spread is not None:
        value = f"{amount(spread.mean_pixels)} px"
        return Tile("Trigger at the network", value, "mean over the places it may take", vanished)
    if (seen := attack.survival_on_images) is not None:
        return Tile(
            "Trigger at the network",
            f"{amount(seen.mean_pixels)} px",
            "changed, mean over the poisoned images",
        )
    return Tile(name, None, f"{UNDEFINED}: no trigger pixels were measured")


def _false_alarms(report: RunReport) -> Tile:
    def cell(images: Literal["clean", "triggered"]) -> Rate:
        for entry in report.cells:
            if (entry.model, entry.images) == ("clean", images):
                return entry.flagged
        return _NO_RATE

    tile = _rate_tile(
        "Flagged on the clean model", cell("clean"), (("triggered images", cell("triggered")),), 3
    )
    return tile._replace(beside=(f"promised at most α = {percent(report.alpha)}", *tile.beside))


def _auroc(score: DetectionScore | None) -> Estimate:
    return score.auroc if score else _NO_ESTIMATE


def _tpr(score: DetectionScore | None) -> Rate:
    return score.tpr_at_fpr_1 if score else _NO_RATE


def _hit(score: DetectionScore | None) -> Rate:
    return score.hit_rate if score else _NO_RATE


def _estimate_tile(name: str, value: Estimate, of: str, beside: tuple[str, Estimate]) -> Tile:
    other_name, other = beside
    note = share(other.value, 3) if other.value is not None else f"{UNDEFINED}: {other.reason}"
    bounds = interval(value.low, value.high) or value.reason
    spread = " · ".join(part for part in (bounds, f"{count(value.n)} {of}") if part)
    if value.value is None:
        return Tile(name, None, f"{UNDEFINED}: {value.reason}", (f"{other_name} {note}",))
    return Tile(name, share(value.value, 3), spread, (f"{other_name} {note}",))


def _rate_tile(
    name: str, value: Rate, beside: Sequence[tuple[str, Rate]], decimals: int = 2
) -> Tile:
    notes = tuple(
        f"{other_name} {share(other.value, decimals)} {fraction(other)}"
        if other.value is not None
        else f"{other_name} {UNDEFINED}: {other.reason}"
        for other_name, other in beside
    )
    if value.value is None:
        return Tile(name, None, f"{UNDEFINED}: {value.reason}", notes)
    counts = f"{count(value.successes)} of {count(value.trials)}"
    spread = " · ".join(
        part for part in (interval(value.low, value.high, decimals), counts) if part
    )
    return Tile(name, share(value.value, decimals), spread, notes)
