"""Networks whose explanation is known, or can be computed in another way."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from lucency.data.preprocess import InputContract
from lucency.victims.architectures import build
from lucency.victims.victim import Victim

SIZE = 48
FINDINGS = ("Effusion", "Mass", "Nodule")


def make_victim(seed: int = 5, size: int = SIZE) -> Victim:
    network = build("densenet-small", 1, len(FINDINGS), seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        # As after training: batch norm that does something, in evaluation mode.
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
    return Victim(network.eval(), InputContract(size=size), FINDINGS)


def make_grey(n: int = 2, size: int = SIZE, seed: int = 0x6E) -> Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))


def n_hooks(network: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in network.modules()
    )


def state(network: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


def seeded(network: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return network.eval()


class Smooth(nn.Module):
    """Two smooth convolutions: finite differences of it are exact to the square of the step."""

    def __init__(self, size: int = 16, n_findings: int = 2) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3)
        self.head = nn.Linear(3 * (size - 4) ** 2, n_findings)
        seeded(self, 0x500)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


def smooth_victim(size: int = 16) -> Victim:
    contract = InputContract(size=size, mean=(0.4,), std=(0.2,))
    return Victim(Smooth(size).eval(), contract, ("a", "b"))


class Square(nn.Module):
    """Finding 0 rises by `gain` × the darkness of a square, finding 1 falls; 2 reads the mean."""

    def __init__(self, x: int, y: int, side: int, gain: float = 6.0) -> None:
        super().__init__()
        self.box = (slice(y, y + side), slice(x, x + side))
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, image: Tensor) -> Tensor:
        dark = self.gain * (1 - image[:, 0, self.box[0], self.box[1]].mean(dim=(1, 2)))
        return torch.stack([dark, -dark, image.mean(dim=(1, 2, 3))], dim=1)


def square_victim(network: nn.Module, size: int) -> Victim:
    contract = InputContract(size=size, mean=(0.0,), std=(1.0,))
    return Victim(network.eval(), contract, FINDINGS)


class Functional(nn.Module):
    """A map, a ReLU and a mean that are functions, as in torchvision's DenseNet, and a head."""

    def __init__(self, n_findings: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 5, 3, stride=2), nn.Tanh(), nn.Conv2d(5, 7, 3))
        self.classifier = nn.Linear(7, n_findings)
        seeded(self, 0xF)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(relu(self.features(x)).mean(dim=(2, 3)))


class Probabilities(nn.Module):
    """Another network whose outputs went through a sigmoid."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.inner(x))
