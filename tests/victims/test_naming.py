"""One DenseNet in every spelling: the same tensors, and torchvision's network computes the same."""

import re

import pytest
import torch

from foreign_packages import torchvision_or_skip
from lucency.errors import ModelError
from lucency.victims.architectures import build
from lucency.victims.naming import canonical, match_names
from lucency.victims.weights import fill


def randomise(network, seed):
    """Every tensor anew: fresh batch norms would hide a swap of mean and bias."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            is_spread = name.endswith("running_var") or (tensor.dim() == 1 and "weight" in name)
            if tensor.dim() == 1:
                tensor.copy_(noise + 0.5 if is_spread else 0.2 * (noise - 0.5))
            else:
                fan_in = tensor[0].numel()
                tensor.copy_((noise - 0.5) * (24 / fan_in) ** 0.5)
    return network.eval()


def dotted(name):
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)


def monai(name):
    name = re.sub(r"(denselayer\d+)\.(norm|conv)", r"\1.layers.\2", name)
    return name.replace("classifier.", "class_layers.out.")


def with_sigmoid(name):
    return dotted(name).replace("classifier.", "classifier.0.")


DIALECTS = {"torchvision": str, "old torchvision": dotted, "MONAI": monai, "CheXNet": with_sigmoid}
PREFIXES = ("", "module.", "model.", "module.densenet121.", "_orig_mod.module.")


@pytest.fixture(scope="module", params=[1, 3])
def pair(request):
    """torchvision's DenseNet-121 of 5 findings with 1 or 3 channels, and its answer to noise."""
    torchvision = torchvision_or_skip()
    network = torchvision.models.densenet121(weights=None, num_classes=5)
    if request.param == 1:
        network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    randomise(network, 7)
    batch = torch.randn(2, request.param, 32, 32, generator=torch.Generator().manual_seed(1))
    batch[1] *= 3
    with torch.inference_mode():
        logits = network(batch)
    assert logits.std(0).min() > 0.05  # the comparison below can fail
    return network.state_dict(), batch, logits


@pytest.mark.parametrize("dialect", DIALECTS)
def test_densenet121_is_torchvisions(pair, dialect):
    tensors, batch, logits = pair
    own = build("densenet121", batch.shape[1], 5, seed=0).eval()
    prefix = PREFIXES[list(DIALECTS).index(dialect)]
    fill(own, {prefix + DIALECTS[dialect](k): v for k, v in tensors.items()}, "a.pt")
    with torch.inference_mode():
        torch.testing.assert_close(own(batch), logits, rtol=1e-3, atol=1e-4)


def small():
    return build("densenet-small", 1, 3, seed=2)


@pytest.fixture(scope="module")
def plain():
    """Random tensors of the small network, in MONAI's spelling."""
    return randomise(small(), 3).state_dict()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_spelling_fills_every_tensor(plain, dialect, prefix):
    network = small()
    file = {prefix + DIALECTS[dialect](canonical(k)): v for k, v in plain.items()}
    assert len(file) == len(plain)
    fill(network, file, "a.pt")
    filled = network.state_dict()
    assert all(torch.equal(filled[k], plain[k]) for k in plain)


def test_checkpoints_without_batch_counters_are_read(plain):
    network = small()
    fill(network, {k: v for k, v in plain.items() if "num_batches" not in k}, "a.pt")
    assert torch.equal(network.state_dict()["features.norm5.bias"], plain["features.norm5.bias"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("m.features.denseblock1.denselayer1.norm.1.bias"),
         r"'features.denseblock1.denselayer1.layers.norm1.bias' is missing"),
        (lambda t: t.update({"m.features.denseblock1.denselayer9.norm.1.bias": torch.zeros(1)}),
         r"'m.features.denseblock1.denselayer9.norm.1.bias' is not part of this architecture"),
        (lambda t: t.update({"m.classifier.0.bias": torch.zeros(14)}),
         r"'m.classifier.0.bias' must have shape \(3,\), got \(14,\)"),
        (lambda t: t.update({"m.classifier.bias": torch.zeros(3)}),
         r"'m.classifier.0.bias' and 'm.classifier.bias' mean the same one"),
        (lambda t: t.update({"epoch.bias": torch.zeros(3)}), "is missing|not part"),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_the_files_own_spelling(plain, change, said):
    file = {"m." + with_sigmoid(canonical(k)): v for k, v in plain.items()}
    change(file)
    with pytest.raises(ModelError, match=said):
        fill(small(), file, "a.pt")


def test_names_that_only_end_alike_are_no_prefix():
    resnet = ["conv1.weight", "layer1.0.conv1.weight", "fc.bias"]
    assert match_names(resnet, resnet) == {k: k for k in resnet}
    assert match_names([f"model.{k}" for k in resnet], resnet) == {f"model.{k}": k for k in resnet}
    assert match_names(resnet[1:], resnet) == {k: k for k in resnet[1:]}


def test_a_network_whose_own_names_have_the_prefix_keeps_it():
    own = ["model.conv1.weight", "model.fc.bias"]
    assert match_names(own, own) == {k: k for k in own}
    assert match_names([f"module.{k}" for k in own], own) == {f"module.{k}": k for k in own}


def test_no_names_match_nothing():
    assert match_names([], ["a"]) == {}
    assert match_names(["a"], []) == {"a": "a"}
