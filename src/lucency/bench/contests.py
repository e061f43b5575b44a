"""Each method of ours beside the peer that gives the same maps, and on how much both are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import Field

from lucency.bench import peers
from lucency.bench.localising import LOCALISATION, LocalisationSize
from lucency.bench.peers import GreyModel, Peer
from lucency.data.phantom import PREVALENCE
from lucency.explain import EXPLANATIONS, Explanation
from lucency.explain.dense_occlusion import dense_occlusion
from lucency.explain.integrated_gradients import integrated_gradients
from lucency.explain.rise import rise
from lucency.explain.smoothgrad import NOISE, smoothgrad
from lucency.records import Record
from lucency.victims.victim import Victim

FINDINGS = tuple(PREVALENCE)
LAST, STEM = "class_layers.relu", "features.relu0"
CAPTUM, TOOLKIT, LOOP = "Captum", "pytorch-grad-cam", "a plain loop"


class ExplainingSize(Record):
    """images: for which all findings are explained; what is slower is timed on fewer (path_images:
    integrated gradients and SmoothGrad; sweep_images: occlusion and RISE) and, of the peers'
    sweeps, on fewer findings, and scaled to `images` and all findings."""

    architecture: str = "densenet121"
    size: int = 224
    images: int = Field(default=32, ge=1)
    path_images: int = Field(default=4, ge=1)
    sweep_images: int = Field(default=2, ge=1)
    peer_sweep_images: int = Field(default=1, ge=1)
    peer_sweep_findings: int = Field(default=2, ge=1, le=len(FINDINGS))
    steps: int = Field(default=16, ge=1)
    window: int = Field(default=32, ge=1)
    stride: int = Field(default=16, ge=1)
    masks: int = Field(default=200, ge=1)
    batch: int = Field(default=16, ge=1)
    repeats: int = Field(default=2, ge=1)
    localisation: LocalisationSize = LOCALISATION


@dataclass(frozen=True)
class Load:
    """How many images ours is timed on; how many images and findings the peer is."""

    images: int
    peer_images: int
    peer_findings: int = len(FINDINGS)


@dataclass(frozen=True)
class Contest:
    """One method. is_gradient: judged by the bars of gradient methods, in bfloat16 as well. drawn:
    the peer gives pictures. differs: why the maps cannot be compared."""

    name: str
    ours: Explanation
    peer_name: str
    peer: Peer
    load: Load
    is_gradient: bool = True
    drawn: bool = False
    differs: str | None = None


def contests(
    victim: Victim,
    size: ExplainingSize,
    layout: torch.memory_format = torch.contiguous_format,
) -> tuple[Contest, ...]:
    """Every method against its peer, for DenseNets as MONAI names their parts.

    layout: of the peers' network. Raises MissingExtra without the toolkits.
    """
    model = GreyModel(victim, layout)
    return (*_gradients(model, size), *_maps_of_layers(model, size), *_sweeps(model, size))


def _gradients(model: GreyModel, size: ExplainingSize) -> tuple[Contest, ...]:
    steps, batch = size.steps, size.batch
    once = Load(size.images, size.images)
    path = Load(size.path_images, size.path_images)
    return (
        Contest(
            "gradient-median",
            EXPLANATIONS["gradient-median"],
            CAPTUM,
            peers.captum_gradient_median(model),
            once,
        ),
        Contest(
            "gradient-input",
            EXPLANATIONS["gradient-input"],
            CAPTUM,
            peers.captum_gradient_input(model),
            once,
        ),
        Contest(
            f"integrated-gradients, {steps} steps",
            _with(integrated_gradients, steps=steps),
            CAPTUM,
            peers.captum_integrated_gradients(model, steps=steps, batch=batch),
            path,
        ),
        Contest(
            f"smoothgrad, {steps} samples",
            _with(smoothgrad, samples=steps),
            CAPTUM,
            peers.captum_smoothgrad(model, samples=steps, noise=NOISE, batch=batch),
            path,
            differs="Captum draws its noise from the global generator",
        ),
    )


def _maps_of_layers(model: GreyModel, size: ExplainingSize) -> tuple[Contest, ...]:
    once = Load(size.images, size.images)
    last = peers.toolkit_cam(model, "GradCAM", LAST)
    return (
        Contest("cam", EXPLANATIONS["cam"], TOOLKIT, last, once, is_gradient=False, drawn=True),
        Contest(
            "grad-cam, last map",
            _with(EXPLANATIONS["grad-cam"], layer=LAST),
            TOOLKIT,
            last,
            once,
            drawn=True,
        ),
        Contest(
            "hirescam, stem",
            _with(EXPLANATIONS["hirescam"], layer=STEM),
            TOOLKIT,
            peers.toolkit_cam(model, "HiResCAM", STEM),
            once,
            drawn=True,
        ),
        Contest(
            "layercam, stem",
            _with(EXPLANATIONS["layercam"], layer=STEM),
            TOOLKIT,
            peers.toolkit_cam(model, "LayerCAM", STEM),
            once,
            drawn=True,
        ),
    )


def _sweeps(model: GreyModel, size: ExplainingSize) -> tuple[Contest, ...]:
    load = Load(size.sweep_images, size.peer_sweep_images, size.peer_sweep_findings)
    window, stride, masks, batch = size.window, size.stride, size.masks, size.batch
    return (
        Contest(
            f"occlusion, window {window}, stride {stride}",
            _with(dense_occlusion, window=window, stride=stride),
            CAPTUM,
            peers.captum_occlusion(model, window=window, stride=stride, batch=batch),
            load,
            is_gradient=False,
        ),
        Contest(
            f"rise, {masks} masks",
            _with(rise, samples=masks),
            LOOP,
            peers.plain_rise(model, masks=masks, batch=batch),
            load,
            is_gradient=False,
        ),
    )


def _with(method: Callable[..., object], **options: object) -> Explanation:
    return partial(method, **options)  # type: ignore[return-value]
