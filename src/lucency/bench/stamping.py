"""Films at the network's input, with a trigger."""

from __future__ import annotations

import numpy as np

from lucency.attacks import Trigger
from lucency.records import Box, NetworkInputs


def stamp_films(
    trigger: Trigger, images: NetworkInputs, generator: np.random.Generator
) -> tuple[NetworkInputs, tuple[Box, ...]]:
    """Copies of films (N, size, size) with the trigger, and where it lies on each."""
    size = images.shape[1]
    window = Box(x=0, y=0, width=size, height=size)
    anchors = generator.random((len(images), 2))
    boxes = tuple(trigger.box(window, (size, size), (float(x), float(y))) for x, y in anchors)
    stamped = np.empty_like(images)
    for i, box in enumerate(boxes):
        stamped[i] = trigger.apply(images[i], box)
    return stamped, boxes
