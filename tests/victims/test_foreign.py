"""Networks of other packages: built empty, filled from the card's file, never downloaded."""

import importlib
import importlib.util
import json
import socket
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from foreign_packages import torchvision_or_skip
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, MissingExtra, ModelError
from lucency.victims.card import load_victim
from lucency.victims.extras import import_extra
from lucency.victims.foreign import FOREIGN, build_foreign, with_channels
from lucency.victims.victim import normalise
from lucency.victims.xrv import PATHOLOGIES, XRV_WEIGHTS

SIZE = 64


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the tests are offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="module")
def torchvision():
    return torchvision_or_skip()


@pytest.fixture(scope="module")
def xrv(torchvision):
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision is not installed")
    with warnings.catch_warnings():  # it silences all of them for good
        return importlib.import_module("torchxrayvision")


def write_card(folder, architecture, network, findings=("A", "B"), **contract):
    """A card and weights, as a user would lay them down."""
    folder.mkdir(exist_ok=True)
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    chosen = {"channels": 1, "size": SIZE} | contract
    lines = [f"{k} = {json.dumps(v)}" for k, v in chosen.items()]
    (folder / "model.toml").write_text(
        f"[model]\narchitecture = {json.dumps(architecture)}\n"
        f"findings = {json.dumps(list(findings))}\n[input]\n" + "\n".join(lines)
    )
    return folder


def grey(size=SIZE, n=2):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(3))


def assert_same(victim, network, *, columns=slice(None), size=SIZE):
    """The victim's logits are those columns of the network's outputs, on the same films."""
    with torch.inference_mode():
        expected = network.eval()(normalise(grey(size), victim.contract))[:, columns]
        found = replace(victim, bf16=False).logits(grey(size))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert expected.std(0).min() > 0


# --- torchvision, timm, monai ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision(tmp_path, torchvision, channels):
    network = with_channels(torchvision.models.resnet18(num_classes=2), channels)
    assert network.conv1.in_channels == channels
    folder = write_card(tmp_path, "torchvision:resnet18", network, channels=channels)
    victim = load_victim(folder)
    assert victim.differentiable
    assert not victim.bf16  # its head would round logits to 8 bits
    assert_same(victim, network)
    features = victim.embed(grey())[1]
    assert features.shape == (2, 512)


def test_torchvision_densenet_reads_the_dotted_names_of_old_checkpoints(tmp_path, torchvision):
    network = torchvision.models.densenet121(num_classes=2)
    folder = write_card(tmp_path, "torchvision:densenet121", network, channels=3)
    old = {
        k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v
        for k, v in network.state_dict().items()
    }
    save_file(old, folder / "weights.safetensors")
    assert_same(load_victim(folder), network)


def test_timm(tmp_path, torchvision):
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False, in_chans=1, num_classes=2)
    assert_same(load_victim(write_card(tmp_path, "timm:resnet10t.c3_in1k", network)), network)


def test_a_transformer_of_fixed_size_is_built_for_the_cards_size(torchvision):
    pytest.importorskip("timm")
    contract = InputContract(size=SIZE, channels=3)
    network = build_foreign("timm:vit_tiny_patch16_224", contract, 2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 2)


@pytest.mark.parametrize("name", ["DenseNet121", "resnet10", "SEResNet50", "efficientnet-b0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_monai(name, channels):
    contract = InputContract(size=SIZE, channels=channels)
    network = build_foreign(f"monai:{name}", contract, 5).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, channels, SIZE, SIZE)).shape == (1, 5)


def test_monai_from_a_card(tmp_path):
    network = build_foreign("monai:resnet10", InputContract(size=SIZE), 2)
    assert_same(load_victim(write_card(tmp_path, "monai:resnet10", network)), network)


def test_building_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    build_foreign("monai:resnet10", InputContract(size=SIZE), 2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("torchvision:resnet19", "got 'resnet19'; near it are .*resnet18"),
        ("torchvision:fcn_resnet50", "got 'fcn_resnet50'"),
        ("torchvision:raft_large", "got 'raft_large'"),
        ("timm:resnet18x", "near it are .*resnet18"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "got 'hf-hub:timm/resnet18'"),
        ("timm:local-dir:/tmp", "got 'local-dir:/tmp'"),
        ("monai:DenseNet12", "near it are DenseNet121"),
        ("monai:UNet", "got 'UNet'"),
        ("xrv:densenet121-res224-nhi", "near it are densenet121-res224-nih"),
    ],
)
def test_a_name_that_the_package_lacks_is_refused(torchvision, architecture, said):
    with pytest.raises(ModelError, match=said):
        build_foreign(architecture, InputContract(size=SIZE), 2)


def test_weights_of_another_network_are_refused_by_tensor(tmp_path, torchvision):
    network = torchvision.models.resnet18(num_classes=2)
    folder = write_card(tmp_path, "torchvision:resnet34", network, channels=3)
    with pytest.raises(ModelError, match=r"'layer1.2.bn1.bias' is missing; check `architecture`"):
        load_victim(folder)
    folder = write_card(tmp_path, "torchvision:resnet18", network, channels=1)
    with pytest.raises(ModelError, match=r"'conv1.weight' must have shape .*`channels`"):
        load_victim(folder)
    folder = write_card(tmp_path, "torchvision:resnet18", network, ("A", "B", "C"), channels=3)
    with pytest.raises(ModelError, match=r"'fc.(weight|bias)' must have shape .*`findings`"):
        load_victim(folder)


def test_weights_are_never_left_out(tmp_path):
    network = build_foreign("monai:resnet10", InputContract(size=SIZE), 2)
    folder = write_card(tmp_path, "monai:resnet10", network)
    card = (folder / "model.toml").read_text()
    for name in ('""', '"absent.pt"'):
        (folder / "model.toml").write_text(card.replace("[input]", f"weights = {name}\n[input]"))
        with pytest.raises((ConfigError, ModelError), match="beside the card"):
            load_victim(folder)


def test_an_input_that_the_network_cannot_take_is_refused_at_once(tmp_path, torchvision):
    network = build_foreign("torchvision:squeezenet1_1", InputContract(size=16, channels=3), 2)
    folder = write_card(tmp_path, "torchvision:squeezenet1_1", network, channels=3, size=16)
    with pytest.raises(ModelError, match=r"must compute an input of shape \(1, 3, 16, 16\)"):
        load_victim(folder)


# --- torchxrayvision ------------------------------------------------------------------------------

XRV_INPUT = {"size": 224, "mean": [0.5], "std": [1 / 2048]}


def test_the_published_weights_are_as_the_package_says(xrv):
    assert tuple(xrv.datasets.default_pathologies) == PATHOLOGIES
    long_names = [k for k in xrv.models.model_urls if "-res" in k]
    assert sorted(XRV_WEIGHTS) == sorted(long_names)
    for name in long_names:
        known = xrv.models.model_urls[name]
        assert XRV_WEIGHTS[name].findings == tuple(known["labels"])
        assert XRV_WEIGHTS[name].size == known["input_resolution"]


def test_xrv_densenet_gives_raw_logits_of_the_named_findings(tmp_path, xrv):
    network = xrv.models.DenseNet(num_classes=18, in_channels=1)
    name = "densenet121-res224-nih"
    network.op_threshs = torch.tensor(xrv.models.model_urls[name]["op_threshs"])
    folder = write_card(tmp_path, f"xrv:{name}", network, XRV_WEIGHTS[name].findings, **XRV_INPUT)
    victim = load_victim(folder)
    assert victim.findings == PATHOLOGIES[:14]
    assert victim.columns == tuple(range(14))
    network.op_threshs = None
    assert_same(victim, network, columns=slice(14), size=224)
    lightest, darkest = (
        float(normalise(torch.full((1, 1, 1, 1), v), victim.contract)) for v in (1.0, 0.0)
    )
    assert (darkest, lightest) == (-1024.0, 1024.0)


def test_xrv_resnet_reads_its_own_names(tmp_path, torchvision, xrv):
    inner = with_channels(torchvision.models.resnet50(num_classes=18), 1)
    name = "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt"
    torch.save(inner.state_dict(), tmp_path / name)
    network = xrv.models.ResNet("resnet50-res512-all", cache_dir=str(tmp_path))
    assert "model.conv1.weight" in network.state_dict()
    assert "op_threshs" in network.state_dict()
    victim = load_victim(write_card(tmp_path, "xrv:resnet50", network, PATHOLOGIES))
    assert_same(victim, network.model)


def test_a_finetuned_xrv_network_has_its_own_findings_and_range(tmp_path):
    network = build_foreign("xrv:densenet121", InputContract(size=SIZE), 2)
    assert_same(load_victim(write_card(tmp_path, "xrv:densenet121", network)), network)


@pytest.mark.parametrize(
    ("findings", "contract", "said"),
    [
        (PATHOLOGIES[:14], {}, r"has 18 outputs, got 14 findings; give findings = \['Atelectasis'"),
        (PATHOLOGIES, {}, "output 14 is untrained in these weights, .* got 'Lung Lesion'"),
        (("Mass", *[""] * 17), {}, "output 0 is 'Atelectasis', got 'Mass'"),
        (None, {"channels": 3}, "takes 1 channel of 224 px, got 3 of 224 px"),
        (None, {"size": 256}, "takes 1 channel of 224 px, got 1 of 256 px"),
        (None, {"std": [0.25]}, r"\[-1024, 1024\], got \[-2, 2\]; set .*0.00048828125"),
        (None, {"mean": [0.0]}, r"got \[0, 2048\]"),
    ],
)
def test_a_card_that_xrv_weights_contradict_is_refused(tmp_path, findings, contract, said):
    network = torch.nn.Linear(1, 1)
    name = "densenet121-res224-nih"
    chosen = XRV_WEIGHTS[name].findings if findings is None else findings
    folder = write_card(tmp_path, f"xrv:{name}", network, chosen, **(XRV_INPUT | contract))
    with pytest.raises(ModelError, match=said):
        load_victim(folder)


# --- packages that are not there ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "package", "extra"),
    [
        ("torchvision:resnet18", "torchvision", "torchvision"),
        ("timm:resnet18", "timm", "timm"),
        ("xrv:resnet50", "torchvision", "xrv"),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, architecture, package, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a)
    )
    with pytest.raises(MissingExtra, match=rf"{architecture} needs .*'lucency\[{extra}\]'"):
        build_foreign(architecture, InputContract(size=SIZE), 2)


def test_a_package_that_cannot_be_imported_says_why(monkeypatch):
    def fail(name, *_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    said = r"timm:resnet18 needs timm, .* \(operator torchvision::nms does not exist\)"
    with pytest.raises(ModelError, match=said):
        build_foreign("timm:resnet18", InputContract(size=SIZE), 2)


def test_a_package_whose_own_needs_are_missing_is_not_called_missing():
    assert import_extra("json", extra="x", needed_by="y") is json
    with pytest.raises(MissingExtra):
        import_extra("no_such_package", extra="x", needed_by="y")
    with pytest.raises(ModelError, match=r"No module named 'json\.absent'"):
        import_extra("json.absent", extra="x", needed_by="y")


def test_the_table_of_packages():
    assert list(FOREIGN) == ["torchvision", "timm", "monai", "xrv"]
