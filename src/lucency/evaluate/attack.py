"""Does the trigger do what the attacker wanted, and would it have done so anyway?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lucency.errors import DataError
from lucency.evaluate.bootstrap import N_RESAMPLES
from lucency.evaluate.checks import as_labels, as_probabilities, same_length
from lucency.evaluate.rates import no_rate, rate
from lucency.records import (
    AttackSuccess,
    BoolArray,
    Direction,
    Float64Array,
    OperatingPoint,
    Rate,
)


def measure_attack_success(
    finding: str,
    direction: Direction,
    target_labels: npt.ArrayLike,
    backdoored_triggered: npt.ArrayLike,
    clean_triggered: npt.ArrayLike,
    backdoored_untriggered: npt.ArrayLike,
    patient_ids: Sequence[str],
    backdoored_points: Sequence[OperatingPoint],
    clean_points: Sequence[OperatingPoint],
    generator: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> tuple[AttackSuccess, ...]:
    """Measure the attack on one finding at each operating point of the backdoored model.

    target_labels (N,) in {1, 0, NaN}: the true labels of `finding`. Only images that the attacker
    has to move count: true label 0 for "set", 1 for "clear"; NaN is left out.
    backdoored_triggered, clean_triggered, backdoored_untriggered (N,) in [0, 1]: probabilities of
    `finding` by the backdoored model and the clean model on the triggered images, and by the
    backdoored model on the same images without the trigger.
    backdoored_points, clean_points: each model's own thresholds, matched by name; points of other
    findings are ignored.
    """
    truth = as_labels(target_labels)
    scores = {
        "backdoored_triggered": as_probabilities(backdoored_triggered, "backdoored_triggered"),
        "clean_triggered": as_probabilities(clean_triggered, "clean_triggered"),
        "backdoored_untriggered": as_probabilities(
            backdoored_untriggered, "backdoored_untriggered"
        ),
    }
    lengths = {name: len(values) for name, values in scores.items()}
    same_length(target_labels=len(truth), **lengths, patient_ids=len(patient_ids))
    to_move = 0 if direction == "set" else 1
    rows = [int(row) for row in np.flatnonzero(truth == to_move)]
    patients = [patient_ids[row] for row in rows]
    nothing = f"no image whose true {finding} is {to_move}"

    def success(name: str, threshold: float | None, reason: str | None) -> Rate:
        if threshold is None:
            return no_rate(f"no threshold: {reason}")
        reached = succeeded(direction, scores[name][rows], threshold)
        return rate(reached, patients, generator, n_resamples=n_resamples, reason=nothing)

    results = []
    for point, clean_point in _matched(finding, backdoored_points, clean_points):
        backdoored = success("backdoored_triggered", point.threshold, point.reason)
        clean = success("clean_triggered", clean_point.threshold, clean_point.reason)
        results.append(
            AttackSuccess(
                operating_point=point.name,
                finding=finding,
                direction=direction,
                threshold=point.threshold,
                clean_threshold=clean_point.threshold,
                backdoored=backdoored,
                clean_model=clean,
                untriggered=success("backdoored_untriggered", point.threshold, point.reason),
                excess=_excess(backdoored, clean),
            )
        )
    return tuple(results)


def succeeded(direction: Direction, probabilities: Float64Array, threshold: float) -> BoolArray:
    """Say which images lie on the attacker's side, (N,): above the threshold for "set", not above
    it for "clear"."""
    above = np.asarray(probabilities > threshold, dtype=np.bool_)
    return above if direction == "set" else ~above


def _matched(
    finding: str, backdoored: Sequence[OperatingPoint], clean: Sequence[OperatingPoint]
) -> list[tuple[OperatingPoint, OperatingPoint]]:
    ours = {p.name: p for p in backdoored if p.finding == finding}
    theirs = {p.name: p for p in clean if p.finding == finding}
    if not ours or set(ours) != set(theirs):
        raise DataError(
            f"Expected the same operating points of {finding} for both models, "
            f"got {sorted(ours)} and {sorted(theirs)}."
        )
    return [(point, theirs[name]) for name, point in ours.items()]


def _excess(backdoored: Rate, clean: Rate) -> float | None:
    if backdoored.value is None or clean.value is None:
        return None
    return backdoored.value - clean.value
