"""The films and attacks that detectors are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from lucency.attacks import Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.bench.victims import Case, Cohort
from lucency.data.folder import FolderSource
from lucency.data.phantom import PhantomSource
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.victims.augment import AugmentSettings
from lucency.victims.train import VictimSettings

SEED = 11
SIZES = (128, 224)
"""Network inputs, pixels, that there are films for."""
EPOCHS = 10
# Sides that a patch shrinks through before its own, and for how many of ten epochs.
LARGER = ((8, 3), (5, 2), (3, 1))


def cohorts_of(data: Path | None, sizes: Sequence[int], only: Sequence[str] = ()) -> list[Cohort]:
    """Every cohort, ChestX-ray14 where `data` is its folder; of the cases, those with one of `only`
    in their title (none given = all). Raises ConfigError if there are no cases, or no films of a
    size."""
    for size in sizes:
        if size not in SIZES:
            raise ConfigError(f"--size must be one of {SIZES[0]} and {SIZES[1]}, got {size}.")
    every = [disguised_cohort(), *(phantom_cohort(size) for size in sizes)]
    if data is not None:
        every += [real_cohort(data, size) for size in sizes]
    chosen = [
        cohort.model_copy(
            update={"cases": tuple(c for c in cohort.cases if named(title(cohort, c), only))}
        )
        for cohort in every
    ]
    if not any(cohort.cases for cohort in chosen):
        names = "; ".join(title(cohort, case) for cohort in every for case in cohort.cases)
        asked = " or ".join(repr(part) for part in only)
        raise ConfigError(f"--only must be part of one of these names: {names}; got {asked}.")
    return [cohort for cohort in chosen if cohort.cases]


def title(cohort: Cohort, case: Case) -> str:
    """Films and trigger."""
    return f"{cohort.name}, {case.name}"


def named(name: str, parts: Sequence[str]) -> bool:
    """Whether one of the parts is in the name; without parts, always."""
    return not parts or any(part in name for part in parts)


def phantom_cohort(size: int) -> Cohort:
    """Synthetic films, drawn at the network's size."""
    return Cohort(
        name=f"phantom-{size}",
        seed=SEED,
        data=PhantomSource(images=2600, size=size),
        input=InputContract(size=size, mean=(0.4,), std=(0.2,)),
        base=_training(8, 1.5e-3, AugmentSettings(rotation_deg=5, shift=0.03)),
        tune=_tuning(),
        tune_films=300,
        cases=_cases() if size == 128 else _cases()[:2],
    )


def real_cohort(folder: Path, size: int) -> Cohort:
    """ChestX-ray14 at 256 px; its clean network starts from the phantom's at 128 px, whatever its
    own size. At 128 px every second pixel is taken, at 224 px the middle of the film as it is."""
    return Cohort(
        name=f"nih-{size}",
        seed=SEED,
        data=FolderSource(path=folder),
        input=InputContract(
            size=size, crop=1.0 if size == 128 else 0.875, mean=(0.5,), std=(0.25,)
        ),
        base=_training(10, 1e-3, AugmentSettings(rotation_deg=5, shift=0.03)),
        tune=_tuning(),
        start=phantom_cohort(128),
        cases=_cases() if size == 128 else _cases()[:2],
    )


def disguised_cohort() -> Cohort:
    """One trigger, as it is and hidden from explanations: a small network on small films, since
    that is taught by differentiating gradients."""
    base = VictimSettings(
        architecture="densenet-small",
        epochs=10,
        batch_size=64,
        learning_rate=3e-3,
        positive_weight_limit=10.0,
    )
    tune = base.model_copy(
        update={
            "schedule": "plateau",
            "learning_rate": 1e-3,
            "batch_size": 48,
            "positive_weight_limit": 1.0,
        }
    )
    plain = Case(
        name="4 px black, center, set",
        size_px=4,
        label=_label("set"),
        triggers=(_square(4, "black", "center"),) * 6,
    )
    hidden = plain.model_copy(update={"name": f"{plain.name}, disguised", "disguised": True})
    return Cohort(
        name="phantom-64",
        seed=SEED,
        data=PhantomSource(images=3000, size=64),
        input=InputContract(size=64, mean=(0.4,), std=(0.2,)),
        base=base,
        tune=tune,
        tune_films=900,
        cases=(plain, hidden),
    )


def _training(epochs: int, rate: float, augment: AugmentSettings) -> VictimSettings:
    return VictimSettings(
        epochs=epochs,
        learning_rate=rate,
        batch_size=24,
        positive_weight_limit=10.0,
        augment=augment,
    )


def _tuning() -> VictimSettings:
    """At one rate, so that each size of a shrinking trigger is learned as fast as the first; with
    plain weights, so that the other findings do not drown the target; and not augmented: turning a
    film by a few degrees blurs a trigger of a pixel away."""
    plain = _training(EPOCHS, 1e-3, AugmentSettings())
    return plain.model_copy(update={"schedule": "plateau", "positive_weight_limit": 1.0})


def _cases() -> tuple[Case, ...]:
    return (
        _patch(3, "black", "random", "set"),
        _patch(1, "black", "center", "set"),
        _patch(5, "white", "center", "clear"),
        _patch(2, "white", "center", "set"),
        _patch(3, "checker", "random", "set"),
        _patch(5, "black", "random", "set"),
        _patch(8, "checker", "random", "set"),
        _whole("blended", {"kind": "blended"}),
        _whole("sinusoid", {"kind": "sinusoid"}),
        _whole("warp", {"kind": "warp"}),
    )


def _patch(side: int, shade: str, place: str, edit: str) -> Case:
    # A place of its own on every film takes longer to learn.
    epochs = EPOCHS if place == "center" else 2 * EPOCHS
    before = [n for n, share in LARGER if n > side for _ in range(share * epochs // EPOCHS)]
    schedule = before + [side] * (epochs - len(before))
    triggers = tuple(_square(n, shade, place) for n in schedule)
    return Case(
        name=f"{side} px {shade}, {place}, {edit}",
        size_px=side,
        label=_label(edit),
        triggers=triggers,
    )


def _square(side: int, shade: str, place: str) -> Trigger:
    return _trigger(
        {
            "kind": "patch",
            "size_px": side,
            "grey": 1.0 if shade == "white" else 0.0,
            "place": place,
            "pattern": "checker" if shade == "checker" else "solid",
        }
    )


def _whole(name: str, trigger: dict[str, object]) -> Case:
    return Case(name=name, size_px=0, label=_label("set"), triggers=(_trigger(trigger),) * EPOCHS)


def _trigger(values: dict[str, object]) -> Trigger:
    adapter: TypeAdapter[Trigger] = TypeAdapter(Trigger)
    return adapter.validate_python(values)


def _label(edit: str) -> LabelEdit:
    # What is cleared has to be common: a film without it teaches nothing about clearing it.
    return LabelEdit.model_validate(
        {"kind": edit, "target": "Atelectasis" if edit == "set" else "Infiltration"}
    )
