"""Every row of EXPLANATIONS, and each method against a second, slower implementation."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.explain import EXPLANATIONS
from lucency.explain.grad_cam import grad_cam
from lucency.explain.gradient_median import gradient_median
from lucency.victims.architectures import build
from lucency.victims.victim import Victim
from median_oracle import whole_window_median

SIZE = 48
FINDINGS = ("Effusion", "Mass", "Nodule")


def _victim(seed: int = 5) -> Victim:
    network = build("densenet-small", 1, len(FINDINGS), seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        # As after training: batch norm that does something, in evaluation mode.
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
    return Victim(network.eval(), InputContract(size=SIZE), FINDINGS)


def _grey(n: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0x6E))


def _hooks(network: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in network.modules()
    )


def _state(network: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


@pytest.mark.parametrize("name", EXPLANATIONS)
class TestConformance:
    def test_one_finite_map_an_image(self, name: str) -> None:
        attribution = EXPLANATIONS[name](_victim(), _grey(3), 1)
        assert attribution.ndim == 3
        assert attribution.shape[0] == 3
        assert attribution.shape[1] <= SIZE
        assert attribution.shape[2] <= SIZE
        assert attribution.dtype == torch.float32
        assert not attribution.requires_grad
        assert torch.isfinite(attribution).all()
        assert attribution.abs().max() > 0

    def test_zero_for_a_network_that_ignores_the_image(self, name: str) -> None:
        victim = _victim()
        nn.init.zeros_(victim.network.class_layers.out.weight)
        assert torch.count_nonzero(EXPLANATIONS[name](victim, _grey(), 0)) == 0

    def test_findings_have_maps_of_their_own(self, name: str) -> None:
        victim = _victim()
        first, second = (EXPLANATIONS[name](victim, _grey(), k) for k in (0, 1))
        assert not torch.allclose(first, second)

    def test_an_image_does_not_depend_on_its_batch(self, name: str) -> None:
        victim, grey = _victim(), _grey(3)
        together = EXPLANATIONS[name](victim, grey, 1)
        for i in range(3):
            alone = EXPLANATIONS[name](victim, grey[i : i + 1], 1)
            torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-4)

    def test_the_image_is_not_changed(self, name: str) -> None:
        grey = _grey()
        before = grey.clone()
        EXPLANATIONS[name](_victim(), grey, 0)
        assert torch.equal(grey, before)
        assert not grey.requires_grad

    @pytest.mark.parametrize("training", [False, True])
    def test_the_network_is_left_as_it_was(self, name: str, training: bool) -> None:
        victim = _victim()
        network = victim.network.train(training)
        next(network.parameters()).requires_grad_(False)
        before, weights = _state(network), copy.deepcopy(network.state_dict())
        EXPLANATIONS[name](victim, _grey(), 0)
        assert _state(network) == before
        assert _hooks(network) == 0
        for key, value in network.state_dict().items():
            assert torch.equal(value, weights[key]), key

    def test_the_network_is_left_as_it_was_after_an_exception(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim = _victim()
        network = victim.network.train()
        next(network.parameters()).requires_grad_(False)
        before = _state(network)

        def fail(_: Tensor) -> Tensor:
            raise MemoryError("out of memory in the head")

        monkeypatch.setattr(network.class_layers, "forward", fail)
        with pytest.raises(MemoryError):
            EXPLANATIONS[name](victim, _grey(), 0)
        assert _state(network) == before
        assert _hooks(network) == 0


class Smooth(nn.Module):
    """Two smooth convolutions: finite differences of it are exact to the square of the step."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x500)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3)
        self.head = nn.Linear(3 * 8 * 8, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


def test_gradient_median_against_finite_differences_in_float64() -> None:
    contract = InputContract(mean=(0.4,), std=(0.2,))
    network = Smooth().eval()
    images = _grey(2, size=12)
    found = gradient_median(Victim(network, contract, ("a", "b")), images, 1).numpy()

    double = copy.deepcopy(network).double()
    step = 1e-4

    def logit(image: np.ndarray) -> float:
        batch = torch.from_numpy((image - 0.4) / 0.2)[None, None]
        with torch.no_grad():
            return float(double(batch)[0, 1])

    for i in range(len(images)):
        image = images[i, 0].numpy().astype(np.float64)
        structure = image - whole_window_median(image, 5)
        expected = np.zeros_like(image)
        for y in range(12):
            for x in range(12):
                up, down = image.copy(), image.copy()
                up[y, x] += step
                down[y, x] -= step
                expected[y, x] = (logit(up) - logit(down)) / (2 * step) * structure[y, x]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("layer", ["norm5", "denseblock4", "denseblock2", "norm0", "conv0"])
def test_grad_cam_against_the_paper_on_a_network_split_by_hand(layer: str) -> None:
    """arXiv 1610.02391: α_c = 1/Z Σ_ij ∂y/∂A_c,ij (1); L = ReLU(Σ_c α_c A_c) (2). No hooks."""
    victim, grey, finding = _victim(), _grey(2), 2
    found = grad_cam(victim, grey, finding, f"features.{layer}")
    names = [name for name, _ in victim.network.features.named_children()]
    cut = names.index(layer) + 1
    for i in range(len(grey)):
        x = (grey[i : i + 1] - 0.5) / 0.25
        with torch.no_grad():
            a = victim.network.features[:cut](x).clone()
        a.requires_grad_(True)
        y = victim.network.class_layers(victim.network.features[cut:](a.clone()))[0, finding]
        (gradient,) = torch.autograd.grad(y, a)
        _, channels, height, width = a.shape
        expected = torch.zeros(height, width)
        for c in range(channels):
            alpha = gradient[0, c].sum() / (height * width)
            expected += alpha * a[0, c].detach()
        expected = torch.where(expected > 0, expected, torch.zeros(()))
        torch.testing.assert_close(found[i], expected, atol=1e-6, rtol=1e-3)


class Rectified(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("norm5", nn.Conv2d(1, 6, 5, stride=2))
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(6, 2)
        generator = torch.Generator().manual_seed(0x1E)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.features(x)).mean(dim=(2, 3)))


def test_an_in_place_relu_after_the_layer_does_not_change_the_map() -> None:
    """Without the hook's copy, the map would hold what the ReLU left of the activation."""
    contract = InputContract(size=16)
    maps = [
        grad_cam(Victim(Rectified(inplace).eval(), contract, ("a", "b")), _grey(2, 16), 0)
        for inplace in (False, True)
    ]
    assert torch.equal(maps[0], maps[1])
    assert maps[0].abs().max() > 0


def test_grad_cam_of_an_unknown_layer_names_the_layers() -> None:
    with pytest.raises(ConfigError, match=r"features\.denseblock1.*features\.norm5.*'norm6'"):
        grad_cam(_victim(), _grey(), 0, "norm6")


def test_grad_cam_of_a_layer_without_a_map_is_refused() -> None:
    victim = _victim()
    with pytest.raises(ConfigError, match=r"must give a map"):
        grad_cam(victim, _grey(), 0, "class_layers.out")
    assert _hooks(victim.network) == 0


def test_grad_cam_keeps_the_cells_of_its_layer() -> None:
    assert grad_cam(_victim(), _grey(), 0, "features.conv0").shape == (2, SIZE // 2, SIZE // 2)
    assert grad_cam(_victim(), _grey(), 0).shape[1] < 4


def test_passes_are_counted() -> None:
    victim = _victim()
    for explanation in EXPLANATIONS.values():
        before = (victim.passes.forwards, victim.passes.backwards)
        explanation(victim, _grey(3), 0)
        after = (victim.passes.forwards, victim.passes.backwards)
        assert (after[0] - before[0], after[1] - before[1]) == (3, 3)
