"""Class activation maps against Captum, pytorch-grad-cam and networks split by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import SIZE, Functional, make_grey, make_victim, n_hooks, seeded
from peer_toolkits import Logits, captum, grad_cam_toolkit
from torch import Tensor, nn

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, ModelError
from lucency.explain.cam import cam
from lucency.explain.grad_cam import grad_cam
from lucency.explain.hirescam import hirescam
from lucency.explain.layer import find_layer
from lucency.explain.layercam import layercam
from lucency.victims.victim import Victim

LAYERS = ["norm5", "denseblock4", "denseblock2", "norm0", "conv0"]


def activations_and_gradients(
    victim: Victim, image: Tensor, layer: str, finding: int
) -> tuple[Tensor, Tensor]:
    """(C, h, w) each, of one image, on the network split by hand: no hooks."""
    names = [name for name, _ in victim.network.features.named_children()]
    cut = names.index(layer) + 1
    with torch.no_grad():
        a = victim.network.features[:cut]((image[None] - 0.5) / 0.25).clone()
    a.requires_grad_(True)
    y = victim.network.class_layers(victim.network.features[cut:](a.clone()))[0, finding]
    (gradient,) = torch.autograd.grad(y, a)
    return a.detach()[0], gradient[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_grad_cam_against_the_paper(layer: str) -> None:
    """arXiv 1610.02391: α_c = 1/Z Σ_ij ∂y/∂A_c,ij (1); L = ReLU(Σ_c α_c A_c) (2)."""
    victim, grey = make_victim(), make_grey(2)
    found = grad_cam(victim, grey, (2, 0), layer=f"features.{layer}").maps
    for i, image in enumerate(grey):
        for place, finding in enumerate((2, 0)):
            a, gradient = activations_and_gradients(victim, image, layer, finding)
            channels, height, width = a.shape
            expected = torch.zeros(height, width)
            for c in range(channels):
                alpha = gradient[c].sum() / (height * width)
                expected += alpha * a[c]
            expected = torch.where(expected > 0, expected, torch.zeros(()))
            torch.testing.assert_close(found[i, place], expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("layer", LAYERS)
def test_hirescam_and_layercam_against_the_papers(layer: str) -> None:
    """HiResCAM: Σ_c ∂y/∂A_c ⊙ A_c. LayerCAM: ReLU(Σ_c ReLU(∂y/∂A_c) ⊙ A_c)."""
    victim, grey, name = make_victim(), make_grey(2), f"features.{layer}"
    high, weighed = (f(victim, grey, (1,), layer=name).maps for f in (hirescam, layercam))
    for i, image in enumerate(grey):
        a, gradient = activations_and_gradients(victim, image, layer, 1)
        expected, positive = torch.zeros(a.shape[1:]), torch.zeros(a.shape[1:])
        for c in range(len(a)):
            expected += gradient[c] * a[c]
            positive += torch.where(gradient[c] > 0, gradient[c], torch.zeros(())) * a[c]
        positive = torch.where(positive > 0, positive, torch.zeros(()))
        torch.testing.assert_close(high[i, 0], expected, atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(weighed[i, 0], positive, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("layer", ["denseblock4", "denseblock1", "conv0"])
def test_grad_cam_and_hirescam_against_captum(layer: str) -> None:
    victim, grey = make_victim(), make_grey(2)
    name, module = f"features.{layer}", getattr(victim.network.features, layer)
    found = grad_cam(victim, grey, (2, 1), layer=name).maps
    high = hirescam(victim, grey, (2, 1), layer=name).maps
    peers = captum()
    for place, finding in enumerate((2, 1)):
        expected = peers.LayerGradCam(Logits(victim), module).attribute(
            grey, target=finding, relu_attributions=True
        )
        torch.testing.assert_close(found[:, place], expected[:, 0].detach(), atol=1e-6, rtol=1e-3)
        product = peers.LayerGradientXActivation(Logits(victim), module).attribute(
            grey, target=finding
        )
        torch.testing.assert_close(
            high[:, place], product.sum(dim=1).detach(), atol=1e-6, rtol=1e-3
        )


@pytest.mark.parametrize(("ours", "theirs"), [(hirescam, "HiResCAM"), (layercam, "LayerCAM")])
def test_hirescam_and_layercam_against_pytorch_grad_cam(ours, theirs) -> None:
    """It cuts off what is negative, and scales each map to [0, 1]."""
    toolkit, victim, grey = grad_cam_toolkit(), make_victim(), make_grey(2)
    maps = ours(victim, grey, (1,), layer="features.denseblock1").maps[:, 0]
    cells = maps.shape[1:]
    target = toolkit.utils.model_targets.ClassifierOutputTarget(1)
    with getattr(toolkit, theirs)(Logits(victim), [victim.network.features.denseblock1]) as peer:
        peer.get_target_width_height = lambda _: (cells[1], cells[0])
        expected = peer(grey, targets=[target] * 2)
    positive = maps.clamp(min=0).numpy()
    low, high = (f(positive, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    np.testing.assert_allclose((positive - low) / (high - low), expected, atol=1e-3)


class Rectified(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("norm5", nn.Conv2d(1, 6, 5, stride=2))
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(6, 2)
        seeded(self, 0x1E, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.features(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize("method", [grad_cam, hirescam, layercam, cam])
def test_an_in_place_relu_after_the_layer_does_not_change_the_map(method) -> None:
    """Without the hook's copy, the map would hold what the ReLU left of the activation."""
    options = {} if method is cam else {"layer": "features.norm5"}
    maps = [
        method(
            Victim(Rectified(inplace), InputContract(size=16), ("a", "b")),
            make_grey(2, 16),
            (0, 1),
            **options,
        ).maps
        for inplace in (False, True)
    ]
    assert torch.equal(maps[0], maps[1])
    assert maps[0].abs().max() > 0


class Reused(nn.Module):
    """One ReLU for two places, as in torchvision's residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 2)
        seeded(self, 0xE)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(x)))).mean(dim=(2, 3)))


def test_of_a_layer_that_is_called_twice_the_last_call_counts() -> None:
    victim = Victim(Reused(), InputContract(size=16), ("a", "b"))
    grey = make_grey(2, 16)
    maps = hirescam(victim, grey, (0, 1), layer="relu").maps
    assert maps.shape == (2, 2, 12, 12)
    torch.testing.assert_close(maps, cam(victim, grey, (0, 1)).maps)


class TestLayers:
    def test_an_unknown_layer_names_those_that_exist(self) -> None:
        with pytest.raises(ConfigError, match=r"features\.denseblock1.*features\.norm5.*'norm6'"):
            grad_cam(make_victim(), make_grey(), (0,), layer="norm6")
        victim = Victim(Reused(), InputContract(size=16), ("a", "b"))
        with pytest.raises(ConfigError, match=r"first, second, relu, head.*'norm6'"):
            layercam(victim, make_grey(1, 16), (0,), layer="norm6")

    def test_a_layer_without_a_map_is_refused(self) -> None:
        victim = make_victim()
        with pytest.raises(ConfigError, match=r"must give a map.*\(2, 3\)"):
            grad_cam(victim, make_grey(), (0,), layer="class_layers.out")
        assert n_hooks(victim.network) == 0

    def test_a_layer_that_is_not_called_is_refused(self) -> None:
        victim = make_victim()
        victim.network.spare = nn.Conv2d(1, 1, 1)
        with pytest.raises(ConfigError, match=r"must give a map.*'spare' gives nothing"):
            grad_cam(victim, make_grey(), (0,), layer="spare")

    def test_a_map_has_the_cells_of_its_layer(self) -> None:
        victim, grey = make_victim(), make_grey()
        at_stem = grad_cam(victim, grey, (0,), layer="features.conv0").maps
        assert at_stem.shape == (2, 1, SIZE // 2, SIZE // 2)
        assert grad_cam(victim, grey, (0,)).maps.shape[2] < 4
        assert hirescam(victim, grey, (0,)).maps.shape == (2, 1, SIZE // 2, SIZE // 2)
        assert layercam(victim, grey, (0,)).maps.shape == (2, 1, SIZE // 2, SIZE // 2)

    def test_a_network_of_unknown_names_needs_a_layer(self) -> None:
        victim = Victim(Functional(), InputContract(size=16), ("a", "b", "c"))
        with pytest.raises(ConfigError, match=r"name a layer that gives a map.*classifier"):
            grad_cam(victim, make_grey(1, 16), (0,))

    def test_find_layer_gives_the_module(self) -> None:
        network = make_victim().network
        assert find_layer(network, "features.norm5") is network.features.norm5


class TestClosedForm:
    def test_against_the_definition_on_a_split_network(self) -> None:
        """arXiv 1512.04150, equation 2, cell by cell; together they are the logit."""
        victim, grey = make_victim(size=64), make_grey(2, 64)
        found = cam(victim, grey, (2, 0))
        out = victim.network.class_layers.out
        with torch.no_grad():
            maps = victim.network.features((grey - 0.5) / 0.25).clamp(min=0)
            logits = victim.network((grey - 0.5) / 0.25)
        n, channels, height, width = maps.shape
        assert height * width > 1
        for i in range(n):
            for place, finding in enumerate((2, 0)):
                expected = torch.zeros(height, width)
                for c in range(channels):
                    expected += out.weight.detach()[finding, c] * maps[i, c] / (height * width)
                torch.testing.assert_close(found.maps[i, place], expected, atol=1e-6, rtol=1e-4)
                total = float(found.maps[i, place].sum() + out.bias.detach()[finding])
                assert total == pytest.approx(float(logits[i, finding]), abs=1e-5)
        assert found.completeness.max() < 1e-4
        assert found.warnings == ()

    def test_is_grad_cam_of_the_rectified_map_without_its_relu(self) -> None:
        """The gradient of a mean is the head's weight over the number of cells."""
        victim, grey = make_victim(size=64), make_grey(2, 64)
        module = victim.network.class_layers.relu
        for finding in range(3):
            expected = captum().LayerGradCam(Logits(victim), module).attribute(grey, target=finding)
            found = cam(victim, grey, (finding,)).maps[:, 0]
            torch.testing.assert_close(found, expected[:, 0].detach(), atol=1e-6, rtol=1e-4)

    def test_of_a_network_whose_relu_and_pooling_are_functions(self) -> None:
        victim = Victim(Functional(), InputContract(size=16), ("a", "b", "c"))
        grey = make_grey(3, 16)
        found = cam(victim, grey, (0, 2))
        with torch.no_grad():
            maps = victim.network.features((grey - 0.5) / 0.25).clamp(min=0)
        expected = torch.einsum("nchw,fc->nfhw", maps, victim.network.classifier.weight[[0, 2]])
        torch.testing.assert_close(found.maps, expected.detach() / maps[0, 0].numel())
        assert found.completeness.max() < 1e-4

    def test_a_head_without_a_bias(self) -> None:
        network = Functional()
        network.classifier = seeded(nn.Linear(7, 3, bias=False), 1)
        victim = Victim(network, InputContract(size=16), ("a", "b", "c"))
        found = cam(victim, make_grey(1, 16), (1,))
        torch.testing.assert_close(found.maps.sum(dim=(2, 3)), found.logits[:, [1]])

    def test_a_logit_that_is_more_than_its_head_is_said_so(self) -> None:
        class Offset(Functional):
            def forward(self, x: Tensor) -> Tensor:
                return 3 * super().forward(x)

        found = cam(
            Victim(Offset(), InputContract(size=16), ("a", "b", "c")), make_grey(1, 16), (0,)
        )
        assert found.completeness.min() > 0.5
        (warning,) = found.warnings
        assert "Completeness is violated" in warning
        assert "the logit is not the output of the last linear layer" in warning

    def test_a_network_without_a_linear_layer_is_refused(self) -> None:
        network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        victim = Victim(network, InputContract(size=16), ("a", "b", "c"))
        with pytest.raises(ModelError, match=r"CAM needs.*found no linear layer; use grad-cam"):
            cam(victim, make_grey(1, 16), (0,))

    def test_a_head_that_reads_every_cell_is_refused(self) -> None:
        network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 14 * 14, 3))
        victim = Victim(network, InputContract(size=16), ("a", "b", "c"))
        with pytest.raises(ModelError, match=r"reads the mean of a map"):
            cam(victim, make_grey(1, 16), (0,))
        assert n_hooks(network) == 0

    def test_a_head_with_too_few_outputs_is_refused(self) -> None:
        victim = replace(make_victim(), columns=(0, 1, 9))
        with pytest.raises(ModelError, match=r"of more than 9 outputs, found one with 3 outputs"):
            cam(victim, make_grey(1), (2,))
