"""The benchmark of forward passes: what it computes and what it says is absent, not how fast."""

from __future__ import annotations

import sys

import pytest
import torch

from lucency.bench import forwards
from lucency.bench.forwards import ForwardsSize, bench_forwards
from lucency.bench.record import Row

SIZE = ForwardsSize(architecture="densenet-small", sizes=(32,), images=5, batch_size=2, repeats=2)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def measured(size: ForwardsSize = SIZE) -> tuple[dict[str, Row], tuple[str, ...], list[int]]:
    steps: list[int] = []

    class Counting:
        def __init__(self, description: str, total: int) -> None:
            self.total = total

        def __enter__(self):
            return steps.append

        def __exit__(self, *_: object) -> None:
            steps.append(-self.total)

    result = bench_forwards(1, Counting, size)
    return {r.name: r for r in result.rows}, result.notes, steps


def test_every_way_computes_the_same_logits_and_is_timed():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    rows, notes, steps = measured()
    spread = rows["32 px: standard deviation of the logits"].value
    assert spread > 0.1
    for name in forwards._WAYS:
        timed = rows[f"32 px: {name}"]
        if timed.value is None:
            assert "bf16" in name or "OpenVINO" in name
            assert timed.reason
            continue
        assert 0 < timed.low <= timed.value <= timed.high
        if name == forwards.PLAIN:
            continue
        off = rows[f"32 px: {name}, largest error of a logit"].value
        assert off < (5e4 if "bf16" in name else 100) * max(spread, 1)
        assert rows[f"32 px: {name} ÷ plain"].value > 0
    assert any(note.startswith("ONNX Runtime, float32: onnxruntime ") for note in notes)
    assert sum(steps) == 0


def test_what_is_absent_is_said_and_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(forwards, "has_fast_bf16", lambda device: False)
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    rows, _, steps = measured()
    for name in ("OpenVINO, float32", "ONNX Runtime, float32"):
        assert rows[f"32 px: {name}"].value is None
        assert "pip install" in rows[f"32 px: {name}"].reason
    for name in ("OpenVINO, bf16", "torch, bf16, channels last"):
        assert rows[f"32 px: {name}"].reason == "this processor only emulates bf16"
    assert rows["32 px: torch, float32, channels last ÷ plain"].value > 0
    assert sum(steps) == 0
