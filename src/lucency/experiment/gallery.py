"""Pictures of a run: triggered and clean films with attribution, Grad-CAM, region and effect.

The cases are chosen by rule, not by looks: the first triggered films on which the attack succeeded,
then the worst miss, the first clean films, the worst false alarm, and a triggered film on the clean
model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.special import expit

from lucency.detect.images.screen import COMPOSITE, Screening
from lucency.experiment.films import Films
from lucency.experiment.measure import Measured, Screenings, boxes
from lucency.experiment.settings import ExperimentSettings
from lucency.experiment.tables import names
from lucency.explain.grad_cam import grad_cam
from lucency.explain.gradient_median import gradient_median
from lucency.records import Condition, Model
from lucency.report.record import GalleryCase
from lucency.victims.victim import Victim, to_grey

N_TRIGGERED = 6
N_CLEAN = 3


@dataclass(frozen=True)
class Choice:
    """A film of the gallery: on which model, triggered or not, and its place in the test set."""

    model: Model
    condition: Condition
    index: int


def draw_gallery(
    settings: ExperimentSettings,
    films: Films,
    victims: dict[Model, Victim],
    screenings: Screenings,
    measured: Measured,
) -> tuple[tuple[GalleryCase, ...], Callable[[Path], None]]:
    """The cases, and the function that writes their pictures to `gallery.safetensors`."""
    cases, arrays = [], {}
    for number, choice in enumerate(_choose(screenings, measured)):
        key = f"case-{number + 1:02d}"
        screened = screenings[choice.model][choice.condition]
        image = films.of(choice.condition).images[choice.index]
        finding = int(screened.finding[choice.index])
        victim = victims[choice.model]
        grey = to_grey(image[None], victim.device)
        attribution = gradient_median(victim, grey, (finding,)).maps[0, 0]
        cells = grad_cam(victim, grey, (finding,), layer=settings.explain.layer).maps[0, 0]
        arrays[f"{key}/image"] = (image >> 8).astype(np.uint8) if image.itemsize > 1 else image
        arrays[f"{key}/attribution"] = attribution.cpu().numpy()
        arrays[f"{key}/gradcam"] = cells.cpu().numpy()
        cases.append(_case(settings, films, measured, screened, choice, key, finding))
    packed = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return tuple(cases), lambda path: save_file(packed, path)


def _choose(screenings: Screenings, measured: Measured) -> list[Choice]:
    backdoored = screenings["backdoored"]
    p_triggered = backdoored["triggered"].p_value[COMPOSITE]
    p_clean = backdoored["clean"].p_value[COMPOSITE]
    works = np.flatnonzero(measured.successful["backdoored"])
    chosen = [Choice("backdoored", "triggered", int(i)) for i in works[:N_TRIGGERED]]
    if len(works):
        worst = int(works[np.argmax(p_triggered[works])])
        chosen.append(Choice("backdoored", "triggered", worst))
    chosen += [Choice("backdoored", "clean", i) for i in range(min(N_CLEAN, len(p_clean)))]
    chosen.append(Choice("backdoored", "clean", int(np.argmin(p_clean))))
    first = int(works[0]) if len(works) else 0
    chosen.append(Choice("clean", "triggered", first))
    return list(dict.fromkeys(chosen))


def _case(
    settings: ExperimentSettings,
    films: Films,
    measured: Measured,
    screened: Screening,
    choice: Choice,
    key: str,
    finding: int,
) -> GalleryCase:
    i = choice.index
    triggered = choice.condition == "triggered"
    region = boxes(screened)[i]
    inputs = films.of(choice.condition)
    shape = (int(inputs.native_shapes[i, 0]), int(inputs.native_shapes[i, 1]))
    p_value = float(screened.p_value[COMPOSITE][i])
    hits, network = measured.hits, measured.network
    return GalleryCase(
        key=key,
        image=names(settings, films, inputs)[0][i],
        condition=choice.condition,
        model=choice.model,
        finding=films.radiographs.findings[finding],
        direction="set" if screened.is_set[i] else "clear",
        p_value=p_value,
        flagged=p_value <= settings.detect.alpha,
        region=region,
        region_native=films.contract.to_native_box(region, shape),
        trigger=network[i] if triggered and network is not None else None,
        hit=bool(hits[choice.model][i]) if triggered and hits is not None else None,
        probability_before=float(expit(float(screened.logit[i]))),
        probability_after=float(expit(float(screened.repaired[i]))),
    )
