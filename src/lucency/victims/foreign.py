"""Networks that other packages define: `torchvision:NAME`, `timm:NAME`, `monai:NAME`, `xrv:NAME`.

Nothing is ever downloaded: a network is built empty and filled from the file that its card names.
The torchxrayvision package itself is not imported (it silences every Python warning, and loads
pickled models): its DenseNets are the published DenseNet-121, its ResNets torchvision's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.errors import ModelError
from lucency.victims.architectures import build
from lucency.victims.extras import import_extra
from lucency.victims.xrv import XRV_WEIGHTS

Builder = Callable[[str, InputContract, int], nn.Module]


def build_foreign(architecture: str, contract: InputContract, n_outputs: int) -> nn.Module:
    """The empty network of an architecture "package:NAME" (a key of `FOREIGN` before the colon).

    Its weights are random and the global generator is left alone. Raises ModelError for a name that
    the package lacks or a package that cannot be imported, MissingExtra for one that is absent.
    """
    package, name = architecture.split(":", 1)
    with torch.random.fork_rng(devices=[]):
        try:
            return FOREIGN[package](name, contract, n_outputs)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"{architecture} must be a classifier with {contract.channels} input channel(s) "
                f"and {n_outputs} outputs, but {package} cannot build it ({error})."
            ) from error


def _torchvision(name: str, contract: InputContract, n_outputs: int) -> nn.Module:
    models = import_extra(
        "torchvision.models", extra="torchvision", needed_by=f"torchvision:{name}"
    )
    _require_known(name, models.list_models(module=models), "torchvision")
    options = {"image_size": contract.size} if name.startswith("vit_") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=n_outputs, **options)
    return with_channels(network, contract.channels)


def _timm(name: str, contract: InputContract, n_outputs: int) -> nn.Module:
    timm = import_extra("timm", extra="timm", needed_by=f"timm:{name}")
    # Other sources of timm ("hf-hub:", "local-dir:") are no names in its list.
    _require_known(name.split(".")[0], timm.list_models(), "timm")
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    options = {"img_size": contract.size} if known and known.fixed_input_size else {}
    network: nn.Module = timm.create_model(
        name, pretrained=False, in_chans=contract.channels, num_classes=n_outputs, **options
    )
    return network


def _monai(name: str, contract: InputContract, n_outputs: int) -> nn.Module:
    from monai.networks import nets

    families: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (
            ("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"),
            {"in_channels": contract.channels, "out_channels": n_outputs},
        ),
        (
            ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"),
            {"n_input_channels": contract.channels, "num_classes": n_outputs},
        ),
        (
            ("SEResNet50", "SEResNet101", "SEResNet152", "SEResNext50", "SEResNext101", "SENet154"),
            {"in_channels": contract.channels, "num_classes": n_outputs},
        ),
        (
            tuple(f"efficientnet-b{size}" for size in range(9)),
            {"in_channels": contract.channels, "num_classes": n_outputs},
        ),
    )
    _require_known(name, [known for names, _ in families for known in names], "monai")
    options = next(chosen for names, chosen in families if name in names)
    if name.startswith("efficientnet"):
        network: nn.Module = nets.EfficientNetBN(name, pretrained=False, spatial_dims=2, **options)
        return network
    built: nn.Module = getattr(nets, name)(pretrained=False, spatial_dims=2, **options)
    return built


def _xrv(name: str, contract: InputContract, n_outputs: int) -> nn.Module:
    if name in XRV_WEIGHTS:
        XRV_WEIGHTS[name].require(name, contract, n_outputs)
    family = name.split("-")[0]
    _require_known(name, ["densenet121", "resnet50", "resnet101", *XRV_WEIGHTS], "xrv")
    if family == "densenet121":
        return build("densenet121", contract.channels, n_outputs, seed=0)
    models = import_extra("torchvision.models", extra="xrv", needed_by=f"xrv:{name}")
    network: nn.Module = models.get_model(family, weights=None, num_classes=n_outputs)
    return with_channels(network, contract.channels)


FOREIGN: dict[str, Builder] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "monai": _monai,
    "xrv": _xrv,
}


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The network, its first convolution replaced (by a random one) if it has other channels."""
    for path, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.in_channels != channels:
            parent, _, leaf = path.rpartition(".")
            setattr(network.get_submodule(parent), leaf, _like(module, channels))
        break
    return network


def _like(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        groups=old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )


def _require_known(name: str, known: Iterable[str], package: str) -> None:
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, 3, 0.5) or names[:3]
        raise ModelError(
            f"{package}:NAME must name a classifier that Lucency can build from {package}, got "
            f"{name!r}; near it are {', '.join(near)}."
        )
