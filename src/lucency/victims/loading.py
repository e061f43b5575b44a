"""From what a card names to a network with weights: the one place that knows every kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lucency.config_faults import shown
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, ModelError
from lucency.victims.architectures import ARCHITECTURES, DenseNet, build, require_size
from lucency.victims.contract_check import require_outputs
from lucency.victims.factory import build_by_factory, is_factory
from lucency.victims.foreign import FOREIGN, build_foreign
from lucency.victims.onnx_model import OnnxNetwork
from lucency.victims.weights import fill, read_weights
from lucency.victims.xrv import IGNORED, XRV_WEIGHTS

ONNX = "onnx"


@dataclass(frozen=True)
class Loaded:
    """differentiable: whether it has gradients. has_exact_head: whether its logits stay float32
    where its convolutions compute in bfloat16."""

    network: nn.Module
    differentiable: bool = True
    has_exact_head: bool = False


def load_network(
    architecture: str,
    weights: Path | None,
    contract: InputContract,
    findings: tuple[str, ...],
    *,
    run_code: bool = False,
) -> Loaded:
    """Build the network and fill it.

    findings: a name for each output, "" for one to skip. weights: the file; None if the network
    brings its own, as a factory's may. run_code: whether a factory may be called. A network of
    another package is run once, on a black film, to see that it returns an output a finding.

    Raises ConfigError for an architecture that nobody knows, ModelError for a factory that may not
    be called, and what the modules of each kind raise.
    """
    n_outputs = len(findings)
    if architecture == ONNX:
        onnx = OnnxNetwork(_required(weights), contract, n_outputs)
        require_outputs(onnx, contract, n_outputs)
        return Loaded(onnx, differentiable=False)
    package, _, name = architecture.partition(":")
    if architecture in ARCHITECTURES:
        require_size(contract.size)
        network = build(architecture, contract.channels, n_outputs, seed=0)
    elif package in FOREIGN and name:
        network = build_foreign(architecture, contract, n_outputs)
        if package == "xrv" and name in XRV_WEIGHTS:
            XRV_WEIGHTS[name].require_findings(name, findings)
    elif is_factory(architecture):
        if not run_code:
            raise ModelError(
                f"The card names code to call, {shown(architecture, 100)}, with your rights; give "
                "--run-code (from Python run_code=True) if card and code are your own."
            )
        network = build_by_factory(architecture, contract.channels, n_outputs)
    else:
        raise _unknown(architecture)
    if weights is not None or not may_bring_weights(architecture):
        path = _required(weights)
        fill(network, read_weights(path), path.name, ignored=IGNORED if package == "xrv" else ())
    if architecture not in ARCHITECTURES:
        require_outputs(network.eval(), contract, n_outputs)
    return Loaded(network, has_exact_head=isinstance(network, DenseNet))


def may_bring_weights(architecture: str) -> bool:
    """Whether it is a factory of the user's, which alone may return a network already filled."""
    return is_factory(architecture) and architecture.partition(":")[0] not in FOREIGN


def _required(weights: Path | None) -> Path:
    if weights is None:
        raise ConfigError(
            'weights must be a file beside the card, got ""; only a factory of your own may bring '
            "a network that is filled already."
        )
    return weights


def _unknown(architecture: str) -> ConfigError:
    kinds = [*ARCHITECTURES, *(f"{package}:NAME" for package in FOREIGN), ONNX]
    return ConfigError(
        f"architecture must be one of {', '.join(kinds)} or package.module:factory, got "
        f"{shown(architecture, 100)!r}."
    )
