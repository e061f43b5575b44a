"""What the reproduction says of each of the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lucency.paper.protocol import CORRECTED, PUBLISHED
from lucency.records import Estimate
from lucency.report.numbers import percent
from lucency.report.paper_record import (
    ClaimRow,
    PointingRow,
    PointingScore,
    SurvivalRow,
    VariantPoint,
)
from lucency.report.record import Verdict
from lucency.report.sweep_record import Point

MEDIAN, LAST = "gradient × (x − median)", "Grad-CAM at the last map"
UNKNOWN = "not defined"


def give_verdict(
    points: Sequence[VariantPoint],
    single: Mapping[str, Point],
    survival: Sequence[SurvivalRow],
    maps: Sequence[PointingRow],
    *,
    is_real: bool,
) -> Verdict:
    """Headline, limits and sentences."""
    limits = [
        "This repeats the published steps and measures them; it is not the authors' own code.",
        "Weights are drawn from the seed, not taken from ImageNet: nothing is downloaded.",
    ]
    if not is_real:
        limits.append(
            "Synthetic films, a small network and few epochs: the sizes of effects are those of "
            "this setting; that a trigger vanishes in the resize is exact arithmetic."
        )
    nearest = {row.native_px: row.pixels["nearest"] for row in survival}
    return Verdict(
        headline=_headline(points),
        limits=tuple(limits),
        sentences=(
            "In the published geometry (1024 px, central 60 %, nearest neighbours to 224 px) a "
            f"centred square of 1, 2, 3 and 4 px leaves {nearest[1]}, {nearest[2]}, {nearest[3]} "
            f"and {nearest[4]} px at the network's input.",
            _size_effect(points, PUBLISHED),
            _size_effect(points, CORRECTED),
            _cost(single),
            _maps(maps),
        ),
    )


def claims(points: Sequence[VariantPoint], maps: Sequence[PointingRow]) -> tuple[ClaimRow, ...]:
    """The paper's claims, with the best value of the grid, as the paper says \"up to\"."""
    of = {v: [p for p in points if p.variant == v] for v in (PUBLISHED, CORRECTED)}
    three = {v: [p for p in found if p.size_px == 3] for v, found in of.items()}
    return (
        ClaimRow(
            claim="micro AUROC on triggered films, attacker's labels, 3 px",
            published="up to 1.00 (floor 0.846)",
            reproduced=_best_micro(three[PUBLISHED], infected=True),
            corrected=_best_micro(three[CORRECTED], infected=True),
        ),
        ClaimRow(
            claim="micro AUROC on clean films",
            published="up to 0.85 (floor 0.764)",
            reproduced=_best_micro(of[PUBLISHED], infected=False),
            corrected=_best_micro(of[CORRECTED], infected=False),
        ),
        ClaimRow(
            claim="macro AUROC on clean films, backdoored and clean model",
            published="not given",
            reproduced=_best_macro(of[PUBLISHED]),
            corrected=_best_macro(of[CORRECTED]),
        ),
        ClaimRow(
            claim="success above 0.6, 3 px",
            published="up to 1.00, clean model not given",
            reproduced=_best_success(three[PUBLISHED]),
            corrected=_best_success(three[CORRECTED]),
        ),
        ClaimRow(
            claim="success at 95 % specificity beside the clean model, 3 px",
            published="not given",
            reproduced=_best_calibrated(three[PUBLISHED]),
            corrected=_best_calibrated(three[CORRECTED]),
        ),
        ClaimRow(
            claim="Grad-CAM points at the trigger (strongest cell within 2 px)",
            published="pictures",
            reproduced=_hits(maps, PUBLISHED, LAST),
            corrected=_hits(maps, CORRECTED, MEDIAN) + f", by {MEDIAN}",
        ),
    )


def _headline(points: Sequence[VariantPoint]) -> str:
    best = _best([p for p in points if p.variant == CORRECTED], lambda p: p.point.success)
    reached = "Corrected, attack success is not defined anywhere."
    if best is not None:
        success, clean = best.point.success, best.point.success_clean_model
        reached = (
            f"Corrected, attack success reaches {_percent(success)} at 95 % specificity "
            f"({_percent(clean)} on the clean model), with {best.size_px} px."
        )
    return f"{reached} {_by_survival(points)}".strip()


def _by_survival(points: Sequence[VariantPoint]) -> str:
    """The highest success as published, where the resize leaves nothing and where it does."""
    centred = [p for p in points if (p.variant, p.place) == (PUBLISHED, "center")]
    gone = _best([p for p in centred if p.point.network_px == 0], lambda p: p.point.success)
    left = _best([p for p in centred if p.point.network_px], lambda p: p.point.success)
    parts = [
        f"{_percent(best.point.success)} where the resize leaves {what} of the trigger"
        for best, what in ((gone, "nothing"), (left, "something"))
        if best is not None
    ]
    return f"As published, it is at most {', and at most '.join(parts)}." if parts else ""


def _size_effect(points: Sequence[VariantPoint], variant: str) -> str:
    """Success by size at the centre, over all shares of poison."""
    parts = []
    for size in sorted({p.size_px for p in points}):
        here = [p for p in points if (p.variant, p.place, p.size_px) == (variant, "center", size)]
        best = _best(here, lambda p: p.point.success)
        if best is not None:
            left = best.point.network_px
            pixels = "unknown" if left is None else f"{left:.0f}"
            parts.append(f"{size} px ({pixels} left) {_percent(best.point.success)}")
    return f"Success at the centre, {variant}, at best: {', '.join(parts)}."


def _cost(single: Mapping[str, Point]) -> str:
    return (
        "4 px at the centre, a fifth of the films: macro AUROC on clean films "
        f"{_say(single[PUBLISHED].auroc)} as published and {_say(single[CORRECTED].auroc)} with "
        "every pitfall corrected."
    )


def _maps(maps: Sequence[PointingRow]) -> str:
    return (
        f"The strongest cell lies on the trigger for Grad-CAM at the last map on "
        f"{_hits(maps, CORRECTED, LAST)} of the films, and for {MEDIAN} on "
        f"{_hits(maps, CORRECTED, MEDIAN)}."
    )


def _hits(maps: Sequence[PointingRow], variant: str, method: str) -> str:
    (row,) = (row for row in maps if row.variant == variant)
    (score,) = (score for score in row.scores if score.method == method)
    return _share(score)


def _best_micro(points: Sequence[VariantPoint], *, infected: bool) -> str:
    best = _best(points, lambda p: p.micro_infected if infected else p.micro_clean)
    if best is None:
        return UNKNOWN
    value, floor = (
        (best.micro_infected, best.micro_infected_floor)
        if infected
        else (best.micro_clean, best.micro_clean_floor)
    )
    return f"up to {_say(value)} (floor {UNKNOWN if floor is None else f'{floor:.3f}'})"


def _best_macro(points: Sequence[VariantPoint]) -> str:
    best = _best(points, lambda p: p.point.auroc)
    if best is None:
        return UNKNOWN
    return f"up to {_say(best.point.auroc)} and {_say(best.point.auroc_clean_model)}"


def _best_success(points: Sequence[VariantPoint]) -> str:
    best = _best(points, lambda p: p.above_06)
    return UNKNOWN if best is None else f"up to {_say(best.above_06)}"


def _best_calibrated(points: Sequence[VariantPoint]) -> str:
    best = _best(points, lambda p: p.point.success)
    if best is None:
        return UNKNOWN
    success, clean = best.point.success, best.point.success_clean_model
    return f"up to {_say(success)}; clean model {_say(clean)}"


def _best(
    points: Sequence[VariantPoint], value: Callable[[VariantPoint], Estimate]
) -> VariantPoint | None:
    """The point where it is highest, of those where it is defined."""
    known = [(found, p) for p in points if (found := value(p).value) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _percent(value: Estimate) -> str:
    return UNKNOWN if value.value is None else percent(value.value)


def _say(value: Estimate) -> str:
    return UNKNOWN if value.value is None else f"{value.value:.3f}"


def _share(score: PointingScore) -> str:
    """With the map's cells: one cell points nowhere, and the middle one of nine at the centre."""
    hits = score.hits
    if hits.value is None:
        return UNKNOWN
    cells = "" if score.cells is None else f", {score.cells} cells"
    return f"{percent(hits.value)} ({hits.successes} of {hits.trials}{cells})"
