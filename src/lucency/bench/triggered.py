"""Films with a trigger whose place is known, and the maps that a method makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from lucency.bench.baseline_maps import BASELINES
from lucency.errors import ConfigError
from lucency.explain import Explanation
from lucency.records import Box, Direction, FloatArray, NetworkInputs
from lucency.victims.victim import Victim, to_grey

CLIPPED = ("grad-cam", "layercam")
"""Keep only what raises a logit, so that their map of a lower one is not the negative."""


@dataclass(frozen=True)
class TriggeredFilms:
    """Films with one kind of trigger, and the network that obeys it.

    images (N, size, size) in the stored dtype, all triggered; boxes: the N places of the trigger,
    network pixels; finding: the index of the target; patients: N names, None = as many as films.
    """

    name: str
    victim: Victim
    images: NetworkInputs
    boxes: tuple[Box, ...]
    finding: int
    direction: Direction = "set"
    patients: tuple[str, ...] | None = None


def checked(case: TriggeredFilms) -> TriggeredFilms:
    """The case with a patient for each film. Raises ConfigError for one that does not fit."""
    n = len(case.images)
    patients = case.patients or tuple(str(i) for i in range(n))
    if not len(case.boxes) == len(patients) == n > 0:
        raise ConfigError(
            f"{case.name}: a box and a patient were expected for each of at least one film, got "
            f"{n} films, {len(case.boxes)} boxes and {len(patients)} patients."
        )
    if case.direction == "clear" and case.victim.outputs != "logits":
        raise ConfigError(f"{case.name}: a cleared finding needs a network that gives logits.")
    return replace(case, patients=patients)


def first(case: TriggeredFilms, n: int) -> TriggeredFilms:
    patients = None if case.patients is None else case.patients[:n]
    return replace(case, images=case.images[:n], boxes=case.boxes[:n], patients=patients)


def maps_of(
    case: TriggeredFilms, name: str, method: Explanation, *, batch: int, bf16: bool | None = None
) -> FloatArray:
    """(N, h, w) float32: the method's maps of the target; positive = what the trigger's direction
    calls for, so that a cleared finding is explained by what lowers its logit."""
    victim = case.victim if bf16 is None else replace(case.victim, bf16=bf16)
    sign = 1.0
    if case.direction == "clear":
        if name in CLIPPED:
            victim = replace(victim, network=_Negated(victim.network), engine=None)
        elif name not in BASELINES:
            sign = -1.0
    grey = to_grey(case.images, victim.device)
    # Baselines draw by the place in the call, so they see all films at once.
    parts = [grey] if name in BASELINES else torch.split(grey, batch)
    maps = [method(victim, part, (case.finding,)).maps[:, 0].float().cpu() for part in parts]
    return (sign * torch.cat(maps)).numpy()


def oracle(case: TriggeredFilms) -> FloatArray:
    """Maps that are 1 in the trigger's box: the best that the metrics allow."""
    maps = np.zeros(case.images.shape, dtype=np.float32)
    for cells, box in zip(maps, case.boxes, strict=True):
        cells[box.y : box.y + box.height, box.x : box.x + box.width] = 1
    return maps


class _Negated(nn.Module):
    """A network whose logits are turned round."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = -self.network(x)
        return logits
