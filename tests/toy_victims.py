"""Networks whose answer is known, and the films that go with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lucency.data.preprocess import InputContract
from lucency.victims.victim import Victim

SIZE = 40
FINDINGS = ("Effusion", "Mass", "Nodule", "Hernia")
GAIN = 6.0


class Toy(nn.Module):
    """Every finding reads the film broadly; finding 0 also obeys a black 2 × 2 square.

    place: (x, y) of the square's corner, or None for anywhere. sign: +1 sets finding 0, -1 clears
    it. repeat: every square counts, where otherwise only the darkest does.
    """

    def __init__(
        self, place: tuple[int, int] | None = None, sign: float = 1.0, *, repeat: bool = False
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x70)
        weights = torch.randn(len(FINDINGS), SIZE, SIZE, generator=generator)
        self.weights = nn.Parameter(0.05 * weights)
        self.place, self.sign, self.repeat = place, sign, repeat

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.einsum("nhw,khw->nk", x[:, 0] - 0.5, self.weights)
        darkness = avg_pool2d(1 - x, 2, stride=1)[:, 0]
        obeyed = (darkness - 0.85).clamp(min=0) / 0.15
        if self.place is not None:
            obeyed = obeyed[:, self.place[1], self.place[0]]
        elif self.repeat:
            obeyed = obeyed.pow(4).sum(dim=(1, 2))
        else:
            obeyed = obeyed.amax(dim=(1, 2))
        trigger = torch.zeros_like(logits)
        trigger[:, 0] = self.sign * GAIN * obeyed
        return logits + trigger


class Curved(nn.Module):
    """A small smooth network without any trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8 * 17 * 17, len(FINDINGS))
        generator = torch.Generator().manual_seed(0xC0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


def victim(network: nn.Module) -> Victim:
    contract = InputContract(size=SIZE, mean=(0.0,), std=(1.0,))
    return Victim(network.eval(), contract, FINDINGS)


def films(n: int, seed: int) -> np.ndarray:
    """(n, SIZE, SIZE) uint8: broad shades between a third and nine tenths of white, with noise."""
    generator = np.random.default_rng(seed)
    shades = np.kron(generator.uniform(0.4, 0.8, (n, 5, 5)), np.ones((1, SIZE // 5, SIZE // 5)))
    noisy = shades + generator.normal(0, 0.02, shades.shape)
    return np.round(255 * noisy.clip(0.3, 0.9)).astype(np.uint8)


def stamped(images: np.ndarray, places: list[tuple[int, int]], side: int = 2) -> np.ndarray:
    """A copy with a black square on each film."""
    copies = images.copy()
    for film, (x, y) in zip(copies, places, strict=True):
        film[y : y + side, x : x + side] = 0
    return copies


def patients(n: int) -> list[str]:
    return [f"P{i}" for i in range(n)]
