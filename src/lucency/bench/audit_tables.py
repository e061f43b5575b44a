"""The audits of a zoo as rows and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lucency.bench.audit_judging import Audited, Sorted, judged, statistics
from lucency.bench.audit_measuring import COMPARED, Cleansed, Measured
from lucency.bench.record import Bar, Grid, Row, at_least, at_most, row, shown_rate
from lucency.detect.models import DEFAULT, TESTS
from lucency.detect.models.neural_cleanse import PUBLISHED
from lucency.evaluate.detection import measure_detection
from lucency.evaluate.rates import rate
from lucency.records import Estimate, Rate

BESIDE, ALONE = "beside clean models", "alone"
"""What an audit is compared with."""
NEAR = 3.0
"""Network pixels between the centres of a recovered trigger and of the planted one."""
ALPHA = 0.01
COUNTS = (3, 5, 8, 12, 19)
"""Of clean models to compare with."""


def detection_rows(mode: str, found: Sequence[Audited], seed: int) -> tuple[Row, ...]:
    pool = Sorted.of(found)
    clean, works, patches = pool.clean, pool.works, pool.patches
    placed = [f for f in patches if f.distance is not None and f.p_value <= ALPHA]
    right = "right finding and direction"

    def share(name: str, outcomes: Sequence[bool], bar: Bar | None = None) -> Row:
        return _share(f"{mode}: {name}", outcomes, seed, bar)

    return (
        _auroc(f"{mode}: ROC-AUC, patches", statistics(clean), statistics(patches), seed, 0.98),
        _auroc(f"{mode}: ROC-AUC, all", statistics(clean), statistics(works), seed, 0.85),
        share(f"{right}, patches", [f.is_right for f in patches]),
        share(f"{right}, all", [f.is_right for f in works], at_least(0.9)),
        share(f"evidence at α = {ALPHA:g}, patches", [f.p_value <= ALPHA for f in patches]),
        share(f"evidence at α = {ALPHA:g}, all", [f.p_value <= ALPHA for f in works]),
        share(
            "recovered within 3 px, fixed places, of those with evidence",
            [(f.distance or 0.0) <= NEAR for f in placed],
            at_least(0.9),
        ),
        *(
            share(
                f"false alarms at α = {alpha:g}",
                [f.p_value <= alpha for f in clean],
                at_most(alpha).model_copy(update={"of_interval": True}),
            )
            for alpha in (ALPHA, 0.05)
        ),
    )


def cost_rows(
    measured: Sequence[Measured],
    beside: Sequence[Audited],
    cleansed: Mapping[str, Cleansed],
    seed: int,
) -> tuple[Row, ...]:
    """Passes and seconds of the audit, without those on reference models; and of its peer."""
    made = {m.member.folder: [t for t in m.tests if t.test in DEFAULT] for m in measured}
    passes = {name: sum(test.passes for test in tests) for name, tests in made.items()}
    seconds = [sum(test.seconds for test in tests) for tests in made.values()]
    rows = [
        row("forward equivalents a model", float(np.mean(list(passes.values()))), "passes"),
        row("seconds a model", float(np.median(seconds)), "s"),
    ]
    if cleansed:
        theirs = float(np.mean([peer.passes for peer in cleansed.values()]))
        same = float(np.mean([passes[name] for name in cleansed]))
        pool = Sorted.of([f for f in beside if f.member.folder in cleansed])
        parts = (pool.clean, pool.patches, pool.works)
        own = [statistics(part) for part in parts]
        indices = [[cleansed[f.member.folder].index for f in part] for part in parts]
        of_both = f"{len(cleansed)} models of both"
        for name, (clean, patches, works) in (("Neural Cleanse", indices), ("the audit", own)):
            rows += [
                _auroc(f"{of_both}, {name}: patches", clean, patches, seed),
                _auroc(f"{of_both}, {name}: all", clean, works, seed),
            ]
        # Its passes are as many as its steps and films.
        published = PUBLISHED.steps * PUBLISHED.films / (COMPARED.steps * COMPARED.films)
        rows += [
            row("fewer passes than Neural Cleanse by", theirs / same, "×", bar=at_least(5)),
            row("fewer than with its published steps, counted, by", published * theirs / same, "×"),
        ]
    return tuple(rows)


def _auroc(
    name: str,
    clean: Sequence[float],
    backdoored: Sequence[float],
    seed: int,
    bar: float | None = None,
) -> Row:
    if not clean or not backdoored:
        return row(name, None, reason="no such model in the pool")
    score, _ = measure_detection(
        "audit",
        "backdoored",
        suspicion_clean=clean,
        suspicion_triggered=backdoored,
        patients_clean=[f"clean {i}" for i in range(len(clean))],
        patients_triggered=[f"backdoored {i}" for i in range(len(backdoored))],
        successful=np.ones(len(backdoored), np.bool_),
        regions=None,
        triggers=None,
        generator=np.random.default_rng([seed, 0xA0]),
    )
    value: Estimate = score.auroc
    wanted = None if bar is None else at_least(bar)
    return row(name, value.value, low=value.low, high=value.high, bar=wanted, reason=value.reason)


def by_test(measured: Sequence[Measured], seed: int) -> Grid:
    """What every test would be worth if it were the only one."""
    rows = []
    for name in TESTS:
        for mode, with_models in ((BESIDE, True), (ALONE, False)):
            found = judged(measured, [name], seed, with_models=with_models)
            if not found:
                continue
            pool = Sorted.of(found)
            areas = (
                _auroc(name, statistics(pool.clean), statistics(part), seed)
                for part in (pool.patches, pool.whole_film, pool.works)
            )
            made = [test for f in found for test in f.measured.tests if test.test == name]
            rows.append(
                (
                    name,
                    mode,
                    *(_interval(area) for area in areas),
                    _told([f.is_right for f in pool.works], seed),
                    _told([f.p_value <= 0.05 for f in pool.clean], seed),
                    f"{np.mean([test.passes for test in made]):,.0f}",
                    f"{np.median([test.seconds for test in made]):.0f}",
                )
            )
    return Grid(
        title="Every test alone",
        header=(
            "test",
            "compared",
            "ROC-AUC, patches",
            "whole film",
            "all",
            "right finding",
            "false alarms at α = 0.05",
            "passes",
            "s",
        ),
        rows=tuple(rows),
    )


def by_network(beside: Sequence[Audited], alone: Sequence[Audited], seed: int) -> Grid:
    """Whether the audit depends on the size of the network or of its input."""
    rows = []
    for network in dict.fromkeys(f.member.network for f in alone):
        for mode, every in ((BESIDE, beside), (ALONE, alone)):
            pool = Sorted.of([f for f in every if f.member.network == network])
            area = _auroc(network, statistics(pool.clean), statistics(pool.works), seed)
            rows.append(
                (
                    network,
                    mode,
                    f"{len(pool.clean)} + {len(pool.works)}",
                    _interval(area),
                    _told([f.is_right for f in pool.works], seed),
                    _told([f.p_value <= ALPHA for f in pool.works], seed),
                    _told([f.p_value <= 0.05 for f in pool.clean], seed),
                )
            )
    return Grid(
        title="By network",
        header=(
            "network",
            "compared",
            "clean + backdoored",
            "ROC-AUC, all",
            "right finding",
            f"evidence at α = {ALPHA:g}",
            "false alarms at α = 0.05",
        ),
        rows=tuple(rows),
    )


def by_models(measured: Sequence[Measured], seed: int) -> Grid:
    """What more clean models are worth."""
    n_clean = sum(m.member.planted is None for m in measured)
    rows = []
    for n_models in (n for n in COUNTS if n < n_clean):
        found = judged(measured, DEFAULT, seed, with_models=True, n_models=n_models)
        pool = Sorted.of(found)
        rows.append(
            (
                str(n_models),
                *(
                    _interval(_auroc("", statistics(pool.clean), statistics(part), seed))
                    for part in (pool.patches, pool.works)
                ),
                _told([f.is_right for f in pool.works], seed),
                _told([f.p_value <= ALPHA for f in pool.works], seed),
                *(_told([f.p_value <= alpha for f in pool.clean], seed) for alpha in (ALPHA, 0.05)),
            )
        )
    return Grid(
        title="How many clean models",
        header=(
            "clean models",
            "ROC-AUC, patches",
            "all",
            "right finding",
            f"evidence at α = {ALPHA:g}",
            f"false alarms at α = {ALPHA:g}",
            "at α = 0.05",
        ),
        rows=tuple(rows),
    )


def _interval(area: Row) -> str:
    if area.value is None:
        return "–"
    if area.low is None or area.high is None:
        return f"{area.value:.3f}"
    return f"{area.value:.3f} ({area.low:.3f}–{area.high:.3f})"


def _share(name: str, outcomes: Sequence[bool], seed: int, bar: Bar | None = None) -> Row:
    value = _rate(outcomes, seed)
    return row(
        f"{name} ({value.successes} of {value.trials})",
        value.value,
        low=value.low,
        high=value.high,
        bar=bar,
        reason=value.reason,
    )


def _told(outcomes: Sequence[bool], seed: int) -> str:
    return shown_rate(_rate(outcomes, seed))


def _rate(outcomes: Sequence[bool], seed: int) -> Rate:
    models = [str(i) for i in range(len(outcomes))]
    generator = np.random.default_rng([seed, 0xA1])
    return rate(np.array(outcomes, np.bool_), models, generator, reason="no such model")


def pairs(
    beside: Sequence[Audited], alone: Sequence[Audited]
) -> list[tuple[Audited | None, Audited]]:
    """Every model's answers; without enough clean models there is but one."""
    with_models = {f.member.folder: f for f in beside}
    return [(with_models.get(f.member.folder), f) for f in alone]


def every_model(
    beside: Sequence[Audited], alone: Sequence[Audited], cleansed: Mapping[str, Cleansed]
) -> Grid:
    def cells(found: Audited | None) -> tuple[str, str, str]:
        if found is None:
            return "–", "–", "–"
        named_ = f"{found.direction} {found.finding}{', right' if found.is_right else ''}"
        off = "–" if found.distance is None else f"{found.distance:.1f}"
        return f"{found.p_value:.4f}", named_, off

    rows = []
    for with_models, by_itself in pairs(beside, alone):
        member = by_itself.member
        peer = cleansed.get(member.folder)
        rows.append(
            (
                member.name,
                "–" if member.planted is None else shown_rate(member.planted.success),
                *cells(with_models),
                *cells(by_itself),
                "–" if peer is None else f"{peer.index:.1f}",
            )
        )
    answers = tuple(
        f"{mode}: {part}" for mode in (BESIDE, ALONE) for part in ("p", "names", "off by, px")
    )
    return Grid(
        title="Every model",
        header=("model", "attack success", *answers, "Neural Cleanse's index"),
        rows=tuple(rows),
    )


def score_of(
    beside: Audited | None, alone: Audited, cleansed: Mapping[str, Cleansed]
) -> dict[str, Any]:
    member, measured, peer = alone.member, alone.measured, cleansed.get(alone.member.folder)
    row_: dict[str, Any] = {
        "model": member.name,
        "network": member.network,
        "backdoored": member.planted is not None,
        "kind": member.planted.kind if member.planted else None,
        "success": member.planted.success.value if member.planted else None,
    }
    for mode, found in (("beside", beside), ("alone", alone)):
        row_ |= {
            f"{mode}: p": found and found.p_value,
            f"{mode}: statistic": found and found.statistic,
            f"{mode}: finding": found and found.finding,
            f"{mode}: direction": found and found.direction,
            f"{mode}: right": found and found.is_right,
            f"{mode}: distance": found and found.distance,
        }
    made = [test for test in measured.tests if test.test in DEFAULT]
    return {
        **row_,
        "forwards": sum(test.forwards for test in made),
        "backwards": sum(test.backwards for test in made),
        "seconds": sum(test.seconds for test in made),
        "cleanse": peer and peer.index,
        "cleanse_passes": peer and peer.passes,
    }
