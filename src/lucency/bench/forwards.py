"""Forward passes: images a second by torch, OpenVINO and ONNX Runtime, and what each rounds off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from lucency.bench.films import phantom_inputs
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark, Row, row, spread
from lucency.bench.timing import Job, interleave, rates, ratios
from lucency.data.phantom import PREVALENCE
from lucency.data.preprocess import InputContract
from lucency.errors import LucencyError
from lucency.progress import Advance, Progress, silent
from lucency.records import EngineName, Record
from lucency.victims.architectures import build, channels_last
from lucency.victims.engine import engine_name, with_engine
from lucency.victims.victim import Victim, default_device, has_fast_bf16, to_grey

NAME = "forwards"
PEER = "torch in float32 and the default layout, the same network and films, in the same run"
FINDINGS = tuple(PREVALENCE)
PLAIN = "torch, float32, default layout"


class ForwardsSize(Record):
    """`images` films a repeat, `batch_size` of them at once, at each of the `sizes` in pixels."""

    architecture: str = "densenet121"
    sizes: tuple[int, ...] = (224, 128)
    images: int = Field(default=32, ge=1)
    batch_size: int = Field(default=16, ge=1)
    repeats: int = Field(default=5, ge=1)


FULL = ForwardsSize()


@dataclass(frozen=True)
class _Way:
    """One way to compute the logits. absent: why it is not there."""

    logits: Callable[[Tensor], Tensor] | None
    described: str = ""
    absent: str = ""


def bench_forwards(seed: int, progress: Progress = silent, size: ForwardsSize = FULL) -> Benchmark:
    """Measure every way at every size. No bar: which one is fastest depends on the processor."""
    machine = describe_machine()
    rows: list[Row] = []
    notes = [
        f"{size.images} phantom films, {size.batch_size} at once, {len(FINDINGS)} findings, random "
        "weights; from grey values to logits; converting and compiling are not in the times."
    ]
    steps = len(size.sizes) * len(_WAYS) * (size.repeats + 1)
    with progress("Benchmark: forwards", steps) as advance:
        for pixels in size.sizes:
            measured, described = _measure(size, pixels, seed, advance)
            rows += measured
            notes += [note for note in described if note not in notes]
    return Benchmark(
        name=NAME,
        title=f"images a second, forward passes of {size.architecture}",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _measure(
    size: ForwardsSize, pixels: int, seed: int, advance: Advance
) -> tuple[list[Row], list[str]]:
    contract = InputContract(size=pixels)
    films, _ = phantom_inputs(size.images, contract, seed)
    network = build(size.architecture, contract.channels, len(FINDINGS), seed).eval()
    victim = Victim(channels_last(network).to(default_device()), contract, FINDINGS)
    grey, step = to_grey(films, victim.device), size.batch_size
    ways = {name: make(victim, size, seed) for name, make in _WAYS.items()}

    def compute(logits: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode():
            parts = [logits(grey[i : i + step]) for i in range(0, len(grey), step)]
            # A GPU has finished when its answer is here.
            return torch.cat(parts).cpu()

    there = {name: way.logits for name, way in ways.items() if way.logits is not None}
    jobs: dict[str, Job] = {name: partial(compute, logits) for name, logits in there.items()}
    seconds = interleave(jobs, size.repeats, advance)
    advance((len(ways) - len(jobs)) * (size.repeats + 1))
    exact = compute(there[PLAIN])
    rows: list[Row] = []
    for name, way in ways.items():
        if way.logits is None:
            rows.append(row(f"{pixels} px: {name}", None, "images/s", reason=way.absent))
            continue
        taken = seconds[name]
        rows.append(spread(f"{pixels} px: {name}", rates(size.images, taken), "images/s"))
        if name == PLAIN:
            continue
        off = 1e6 * float((compute(way.logits) - exact).abs().max())
        rows.append(spread(f"{pixels} px: {name} ÷ plain", ratios(seconds[PLAIN], taken), "×"))
        rows.append(row(f"{pixels} px: {name}, largest error of a logit", off, "10⁻⁶"))
    rows.append(row(f"{pixels} px: standard deviation of the logits", float(exact.std())))
    return rows, [f"{name}: {way.described}." for name, way in ways.items() if way.described]


def _plain(victim: Victim, size: ForwardsSize, seed: int) -> _Way:
    network = build(size.architecture, victim.contract.channels, len(FINDINGS), seed)
    network.load_state_dict(victim.network.state_dict())
    network = network.to(victim.device).eval()
    mean, std = victim.contract.mean[0], victim.contract.std[0]
    return _Way(lambda grey: network((grey - mean) / std))


def _by_torch(victim: Victim, *, bf16: bool) -> _Way:
    if bf16 and not has_fast_bf16(victim.device):
        return _Way(None, absent="this processor only emulates bf16")
    return _Way(replace(victim, bf16=bf16).logits)


def _by_engine(victim: Victim, name: EngineName, *, bf16: bool) -> _Way:
    if bf16 and not has_fast_bf16(victim.device):
        return _Way(None, absent="this processor only emulates bf16")
    try:
        fast = with_engine(replace(victim, bf16=bf16), name)
    except LucencyError as error:
        return _Way(None, absent=str(error))
    return _Way(fast.logits, engine_name(fast))


_WAYS: dict[str, Callable[[Victim, ForwardsSize, int], _Way]] = {
    PLAIN: _plain,
    "torch, float32, channels last": lambda v, _, __: _by_torch(v, bf16=False),
    "torch, bf16, channels last": lambda v, _, __: _by_torch(v, bf16=True),
    "OpenVINO, float32": lambda v, _, __: _by_engine(v, "openvino", bf16=False),
    "OpenVINO, bf16": lambda v, _, __: _by_engine(v, "openvino", bf16=True),
    "ONNX Runtime, float32": lambda v, _, __: _by_engine(v, "onnxruntime", bf16=False),
}
