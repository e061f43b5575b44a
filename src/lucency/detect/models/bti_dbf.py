"""BTI-DBF: take the features that clean answers need away, and drive what is left.

Xu et al. 2024, "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling Benign
Features" (ICLR). First a mask over the features that enter the last layer is learned: with the
features in the mask the answers on clean films stay, with the others they go. Then a generator of
small changes is trained that leaves the first kind of features and moves the second. It makes no
assumption on the trigger, so bends, frequencies and patterns are all within reach; what it moves
the answers to is the suspected target.

For findings that do not exclude each other the answers are all sigmoids (binary cross-entropy to
the model's own probabilities), and the target is the finding and direction that the generated
change moves most. The generator is a small network, as they have a larger one, bounded by
`strength`; features are those that enter the last linear layer, since a model may be anyone's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from lucency.detect.models.evidence import Evidence, Recovered, score
from lucency.detect.models.subject import Subject
from lucency.errors import ModelError
from lucency.progress import Progress, silent
from lucency.records import Float64Array
from lucency.victims.head import find_head, keep_features
from lucency.victims.victim import frozen, normalise

NAME = "feature decoupling"
WORDS = "learned change of every pixel"


@dataclass(frozen=True)
class Decoupling:
    """mask_steps, steps: of Adam, for the mask and for the generator, the latter on `films` films
    each. strength: largest change of a pixel, fraction of the grey range; keep: weight of the
    features that must stay."""

    mask_steps: int = 100
    steps: int = 60
    films: int = 16
    strength: float = 0.2
    keep: float = 1.0


DEFAULT = Decoupling()


class Generator(nn.Module):
    """films (n, 1, H, W) -> changed films in [0, 1], no pixel by more than `strength`."""

    def __init__(self, strength: float, channels: int = 16) -> None:
        super().__init__()
        self.strength = strength
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 5, padding=4, dilation=2),
            nn.ReLU(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(self, films: Tensor) -> Tensor:
        change = self.strength * torch.tanh(self.layers(films - 0.5))
        return (films + change).clamp(0, 1)


def learn_mask(features: Tensor, head: nn.Linear, steps: int) -> Tensor:
    """features (N, D) that enter `head` -> mask (D,) in [0, 1]: 1 = clean answers need it.

    Minimises the loss of the answers with the mask less that without it, as published."""
    answers = torch.sigmoid(head(features)).detach()
    raw = torch.zeros(features.shape[1], device=features.device, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(steps):
        mask = torch.sigmoid(raw)
        with_it = binary_cross_entropy_with_logits(head(features * mask), answers)
        without = binary_cross_entropy_with_logits(head(features * (1 - mask)), answers)
        optimiser.zero_grad()
        # Bounded, or the second term runs away and the first is forgotten.
        torch.autograd.backward(with_it - without.clamp(max=2.0))
        optimiser.step()
    return torch.sigmoid(raw).detach()


@dataclass(frozen=True)
class Decoupled:
    """generator: the learned change. moved (2, K): how far it moves each finding on the clean
    films, in standard deviations of its clean logits; larger = more suspicious."""

    generator: Generator
    moved: Float64Array


def feature_decoupling(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """As a test: one change for all findings, and how far it moves each."""
    found = decoupled(subject, seed, progress=progress)

    def put(films: Tensor) -> Tensor:
        with torch.inference_mode():
            return cast(Tensor, found.generator(films))

    recovered = Recovered(WORDS, put, None)
    return Evidence(
        NAME,
        "gradients and features",
        (WORDS,),
        score(found.moved)[..., None],
        lambda direction, finding, budget: recovered,
    )


def decoupled(
    subject: Subject, seed: int, settings: Decoupling = DEFAULT, progress: Progress = silent
) -> Decoupled:
    """Learn the change. Raises ModelError for a model whose last layer is not linear, or without
    gradients."""
    network = subject.victim.network
    head = find_head(network)
    if head is None or not subject.victim.differentiable:
        raise ModelError(f"{NAME} needs gradients and a last linear layer; leave it out.")
    device = subject.films.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(settings.strength).to(device)
    passes = subject.victim.passes
    optimiser = torch.optim.Adam(generator.parameters(), lr=0.01)
    draw = np.random.default_rng([seed, 0xB7])
    with (
        progress(NAME, settings.steps) as advance,
        frozen(network),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        with torch.no_grad():
            features = _features(network, subject, subject.films)
        scale = features.std(dim=0).clamp(min=1e-6)
        mask = learn_mask(features, head, settings.mask_steps)
        for _ in range(settings.steps):
            films = torch.from_numpy(draw.permutation(len(features))[: settings.films])
            moved = _features(network, subject, generator(subject.films[films])) - features[films]
            stays, goes = moved / scale * mask, moved / scale * (1 - mask)
            loss = settings.keep * mse_loss(stays, torch.zeros_like(stays))
            loss = loss - goes.square().mean().sqrt()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            passes.forwards += len(films)
            passes.backwards += len(films)
            optimiser.step()
            advance(1)
        changed = generator(subject.films).detach()
    return Decoupled(generator, subject.moved(changed, np.arange(len(changed))).mean(axis=0))


def _features(network: nn.Module, subject: Subject, films: Tensor) -> Tensor:
    """What enters the last layer, (n, D), with gradients where they are enabled."""
    with keep_features(network, detached=False) as kept:
        network(normalise(films, subject.victim.contract))
    return kept[-1]
