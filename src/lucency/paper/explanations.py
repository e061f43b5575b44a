"""What the published heat maps were, beside what points at the trigger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lucency.errors import ConfigError
from lucency.evaluate.localisation import localise
from lucency.evaluate.rates import no_rate, rate
from lucency.experiment.films import Films
from lucency.experiment.settings import ExperimentSettings
from lucency.explain import Explanation
from lucency.explain.grad_cam import grad_cam
from lucency.explain.gradient_median import gradient_median
from lucency.explain.layer import find_layer, keep_leaf
from lucency.records import Box, Rate
from lucency.report.paper_record import PointingScore
from lucency.victims.card import load_victim
from lucency.victims.victim import Victim, to_grey

N_FILMS = 64
INNER = "features.denseblock3"
PUBLISHED = "Grad-CAM as published: the third block's map into the head, of the probability"


def pointing(
    settings: ExperimentSettings, films: Films, model: Path, seed: int
) -> list[PointingScore]:
    """How often the strongest cell of each map lies within 2 px of the trigger, on the first
    triggered test films on which something of it is left at the network's input."""
    victim = load_victim(model)
    every = enumerate(films.trigger_boxes() or ())
    boxes = dict([(i, box) for i, box in every if box is not None][:N_FILMS])
    found = []
    for name, method in _methods():
        try:
            hits, cells = _hits(settings, films, victim, method, boxes)
        except ConfigError as error:
            found.append(PointingScore(method=name, cells=None, hits=no_rate(str(error))))
            continue
        generator = np.random.default_rng([seed, 0x901])
        patients = [films.patients(films.triggered)[i] for i in boxes]
        share: Rate = rate(np.array(hits, dtype=np.bool_), patients, generator)
        found.append(PointingScore(method=name, cells=cells, hits=share))
    return found


def published_grad_cam(victim: Victim, grey: Tensor, finding: int) -> Tensor:
    """grey (N, 1, H, W) -> maps (N, h, w), not negative: pitfall P9, as it was published.

    The map of the third dense block goes straight into the classifier's head, which skips the last
    block, and the gradient is that of the probability. Raises ConfigError for a network whose head
    does not take so many channels.
    """
    network = victim.network
    block, head = find_layer(network, INNER), find_layer(network, "class_layers")
    with keep_leaf(network, INNER) as kept:
        victim.logits(grey.detach())
    values = kept[-1].detach().float().requires_grad_(True)
    width = next(m.in_features for m in head.modules() if isinstance(m, nn.Linear))
    if values.shape[1] != width:
        raise ConfigError(
            f"the published Grad-CAM needs a head that takes the {values.shape[1]} channels of "
            f"{INNER} ({type(block).__name__}), but this one takes {width}"
        )
    with torch.enable_grad(), torch.autocast(grey.device.type, enabled=False):
        probability = torch.sigmoid(head(values.clone()))[:, finding]
        (gradient,) = torch.autograd.grad(probability.sum(), values)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * values.detach()).sum(dim=1).clamp(min=0)


def _methods() -> Iterator[tuple[str, Explanation | None]]:
    yield PUBLISHED, None
    yield "Grad-CAM at the last map", grad_cam
    yield (
        "Grad-CAM at the third block",
        lambda victim, grey, findings: grad_cam(victim, grey, findings, layer=INNER),
    )
    yield "gradient × (x − median)", gradient_median


def _hits(
    settings: ExperimentSettings,
    films: Films,
    victim: Victim,
    method: Explanation | None,
    boxes: Mapping[int, Box],
) -> tuple[list[bool], str | None]:
    finding = settings.attack.label.index(films.radiographs.findings)
    side = settings.input.size
    hits, cells = [], None
    for row, box in boxes.items():
        grey = to_grey(films.triggered.images[row : row + 1], victim.device)
        if method is None:
            map_ = published_grad_cam(victim, grey, finding)[0]
        else:
            map_ = method(victim, grey, (finding,)).maps[0, 0]
        hits.append(localise(map_.cpu().numpy(), box, (side, side)).is_hit)
        cells = f"{map_.shape[0]} × {map_.shape[1]}"
    return hits, cells
