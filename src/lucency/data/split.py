"""Splits that never share a patient: the source's own stay, the missing ones are carved."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from lucency.errors import ConfigError, DataError
from lucency.records import SPLITS, Radiographs, Split

_STREAM = 0x51717  # separates this draw from others of the same seed


def split_patients(
    radiographs: Radiographs,
    *,
    validation: float,
    reference: float,
    test: float,
    seed: int,
) -> Radiographs:
    """Give every film a split so that no patient is in two.

    One rule: whichever of validation, reference and test the source does not provide is carved
    from the rest (its "train" and its unassigned films), by whole patients drawn from `seed`; what
    is left is "train". Rows that the source holds out stay where they are.

    validation, reference, test: fractions in (0, 1) of the patients of the rest; that of a split
        which the source provides is ignored.

    The result depends on the patients' names, not on the order of the rows. Raises `DataError` if
    the source puts a patient into two splits, or if a split would be empty.
    """
    _check_fractions({"validation": validation, "reference": reference, "test": test}, seed)
    own = _own_splits(radiographs)
    provided = set(own.values())
    fractions: dict[Split, float] = {
        "validation": validation,
        "reference": reference,
        "test": test,
    }
    missing = {name: share for name, share in fractions.items() if name not in provided}
    rest = sorted(patient for patient, split in own.items() if split == "train")
    drawn = {**own, **_carve(rest, missing, seed)}
    return radiographs.with_splits([drawn[patient] for patient in radiographs.patient_ids])


def _check_fractions(fractions: dict[str, float], seed: int) -> None:
    for name, share in fractions.items():
        if not (math.isfinite(share) and 0 < share < 1):
            raise ConfigError(
                f"The {name} fraction must be between 0 and 1, but is {share}; give a fraction of "
                "the patients, not a percentage."
            )
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or more, but is {seed}.")


def _own_splits(radiographs: Radiographs) -> dict[str, Split]:
    """The split of each patient in the source; unassigned counts as "train"."""
    found: defaultdict[str, set[Split]] = defaultdict(set)
    for patient, split in zip(radiographs.patient_ids, radiographs.splits, strict=True):
        found[patient].add(split or "train")
    torn = {patient: splits for patient, splits in found.items() if len(splits) > 1}
    if torn:
        patient = min(torn)
        names = ", ".join(sorted(s.replace("train", "train or unassigned") for s in torn[patient]))
        raise DataError(
            f"No patient may be in two splits, but {radiographs.name} has {len(torn)} that are, "
            f"for example {patient!r} in: {names}; move all films of a patient to one split."
        )
    return {patient: splits.pop() for patient, splits in found.items()}


def _carve(rest: list[str], missing: dict[Split, float], seed: int) -> dict[str, Split]:
    """The split of each patient of the rest, drawn by name."""
    generator = np.random.default_rng([seed, _STREAM])
    order = [rest[i] for i in generator.permutation(len(rest))]
    carved: dict[str, Split] = dict.fromkeys(order, "train")
    start = 0
    for name in SPLITS:
        if name in missing:
            size = max(1, round(missing[name] * len(rest)))
            carved.update(dict.fromkeys(order[start : start + size], name))
            start += size
    if start >= len(rest):
        raise DataError(
            f"No patient would be left to train on: {len(rest)} are to be split, and "
            f"{', '.join(missing) or 'nothing'} would take {start}; give more patients or smaller "
            "fractions."
        )
    return carved
