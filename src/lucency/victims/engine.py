"""The fast path: a victim's passes without gradients, computed by OpenVINO or ONNX Runtime.

An engine rounds differently from torch, by up to a hundredth of a logit in bf16: what is compared
with each other, calibration films and suspects above all, has to come from the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lucency.config_faults import shown
from lucency.errors import ConfigError, LucencyError, ModelError
from lucency.records import EngineName
from lucency.victims import engine_onnxruntime, engine_openvino
from lucency.victims.engine_graph import (
    BATCH,
    GraphEngine,
    Head,
    Library,
    Precision,
    Returns,
    Tapped,
)
from lucency.victims.head import find_head, keep_features
from lucency.victims.onnx_model import OnnxNetwork
from lucency.victims.victim import Engine, Victim, frozen, has_fast_bf16, normalise

LIBRARIES: dict[str, Library] = {
    library.name: library for library in (engine_openvino.LIBRARY, engine_onnxruntime.LIBRARY)
}
"""In the order in which they are tried."""

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bf16": 5e-2}
"""Largest difference from torch's float32 that is let through, in standard deviations of the
network's outputs; in bf16 also twice the difference that torch's own bf16 makes."""

# One chunk and a short one.
_N_PROBES = BATCH + 1


@dataclass(frozen=True)
class Picked:
    """engine: None = torch. reasons: why those that come first in the order were not taken."""

    engine: Engine | None
    reasons: tuple[str, ...] = ()


def with_engine(victim: Victim, name: EngineName = "auto") -> Victim:
    """The same victim, its passes without gradients computed by the named engine; it shares the
    count of passes. The engine keeps the weights as they are now.

    "auto": OpenVINO if it is installed and computes what torch computes, else ONNX Runtime, else
    torch; no error. A victim without gradients (an ONNX model) is returned as it is.

    Raises MissingExtra for a named engine that is not installed; ConfigError for an unknown name,
    or a network that is not on the processor; ModelError for a network that it cannot convert, or
    whose outputs it changes by more than `TOLERANCE`.
    """
    if not victim.differentiable:
        return victim
    return replace(victim, engine=pick_engine(victim, name).engine)


def pick_engine(victim: Victim, name: EngineName = "auto") -> Picked:
    """What `with_engine` puts into the victim, and why nothing faster. Raises the same errors."""
    if name == "torch":
        return Picked(None)
    if name in LIBRARIES:
        return Picked(_build(victim, LIBRARIES[name]))
    if name != "auto":
        known = ", ".join(("auto", "torch", *LIBRARIES))
        raise ConfigError(f"An engine is one of {known}, got {name!r}.")
    if victim.device.type != "cpu":
        return Picked(None, (f"The network is on {victim.device}, where torch is fastest.",))
    reasons: list[str] = []
    for library in LIBRARIES.values():
        if _computes_bf16(victim) and not library.computes_bf16:
            reasons.append(f"The engine {library.name} is slower in float32 than torch in bf16.")
            continue
        try:
            return Picked(_build(victim, library), tuple(reasons))
        except LucencyError as error:
            reasons.append(str(error))
    return Picked(None, tuple(reasons))


def engine_name(victim: Victim) -> str:
    """What computes the passes without gradients: its name, version and precision."""
    if victim.engine is not None:
        return str(victim.engine)
    if isinstance(victim.network, OnnxNetwork):
        return engine_onnxruntime.name()
    return f"torch {torch.__version__}, {'bf16' if victim.bf16 else 'float32'}"


def _build(victim: Victim, library: Library) -> GraphEngine:
    name, device = library.name, victim.device
    if device.type != "cpu":
        raise ConfigError(
            f"The engine {name} computes on the processor, but the network is on {device}; choose "
            "the engine torch."
        )
    try:
        engine, checks = _convert(victim, library)
    except LucencyError:
        raise
    except Exception as error:
        raise ModelError(
            f"The engine {name} must compute this network, but cannot ({shown(str(error), 200)}); "
            "choose the engine torch."
        ) from error
    for check in checks:
        check.require(name, engine.graph.precision)
    return engine


def _convert(victim: Victim, library: Library) -> tuple[GraphEngine, list[_Check]]:
    probes = _probes(victim)
    with frozen(victim.network):
        expected, entering = _compute(victim.network, probes)
        head = _head(victim.network, probes)
        returns: Returns = "outputs" if entering is None else "outputs and features"
        tapped = Tapped(victim.network, "features" if head else returns).eval()
        graph = library.convert(tapped, probes[:BATCH], _precision(victim, library))
        engine = GraphEngine(library, graph, head)
        outputs, features = engine(probes)
        with torch.autocast("cpu", torch.bfloat16, enabled=graph.precision == "bf16"):
            by_torch, entering_by_torch = _compute(victim.network, probes)
    checks = [_Check("outputs", outputs, expected, by_torch)]
    if features is not None and entering is not None and entering_by_torch is not None:
        checks.append(_Check("features", features, entering, entering_by_torch))
    return engine, checks


def _compute(network: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor | None]:
    """Outputs (N, K') and, if there is a last linear layer, what enters it, (N, D): float32."""
    with torch.no_grad(), keep_features(network) as kept:
        outputs: Tensor = network(batch).float()
    return outputs, kept[-1] if kept else None


def _head(network: nn.Module, batch: Tensor) -> Head | None:
    """The last linear layer, if what it returns is what the network returns."""
    linear = find_head(network)
    if linear is None:
        return None
    returned: list[Tensor] = []
    handle = linear.register_forward_hook(lambda m, i, output: returned.append(output))
    try:
        with torch.no_grad(), keep_features(network) as kept:
            outputs = network(batch)
    finally:
        handle.remove()
    if len(returned) != 1 or returned[0] is not outputs or outputs.ndim != 2:
        return None
    head = Head.of(linear)
    # The same tensor may still have been changed in place.
    return head if torch.allclose(head(kept[0]), outputs, rtol=1e-4, atol=1e-5) else None


def _computes_bf16(victim: Victim) -> bool:
    """Probabilities are not for bf16: 1 - p would be a multiple of 1/256."""
    fast = has_fast_bf16(torch.device("cpu"))
    return victim.bf16 and fast and victim.outputs == "logits"


def _precision(victim: Victim, library: Library) -> Precision:
    return "bf16" if library.computes_bf16 and _computes_bf16(victim) else "float32"


def _probes(victim: Victim) -> Tensor:
    """A few normalised images: shades between black and white, broad and fine."""
    size = victim.contract.size
    generator = torch.Generator().manual_seed(0xE6)
    broad = torch.rand(_N_PROBES, 1, 4, 4, generator=generator)
    fine = torch.rand(_N_PROBES, 1, size, size, generator=generator)
    shades = interpolate(broad, (size, size), mode="bilinear")
    return normalise((0.8 * shades + 0.2 * fine).clamp(0, 1), victim.contract).contiguous()


@dataclass(frozen=True)
class _Check:
    """found, expected, by_torch: by the engine, by torch in float32 and in the engine's precision,
    each (N, ·)."""

    what: str
    found: Tensor
    expected: Tensor
    by_torch: Tensor

    def require(self, name: str, precision: Precision) -> None:
        """Raises ModelError, with the number, unless the largest difference is in `TOLERANCE`."""
        if self.found.shape != self.expected.shape:
            raise ModelError(
                f"The engine {name} must give {self.what} of shape {tuple(self.expected.shape)}, "
                f"got {tuple(self.found.shape)}; choose the engine torch."
            )
        error = float((self.found - self.expected).abs().max())
        spread = float(self.expected.std())
        allowed = max(
            TOLERANCE[precision] * spread,
            2 * float((self.by_torch - self.expected).abs().max()),
            # What float32 itself leaves open.
            1e-5 * max(1.0, float(self.expected.abs().max())),
        )
        if not error <= allowed:
            raise ModelError(
                f"The engine {name} must give the network's {self.what} on random images within "
                f"{allowed:.2g}, but is off by {error:.2g} in {precision} (their standard "
                f"deviation is {spread:.2g}); choose the engine torch."
            )
