"""What holds for every published detector of triggered images, whatever it measures."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lucency.detect.images import pairs
from lucency.detect.images.suspicion import Fit
from lucency.errors import DataError
from lucency.victims.victim import Victim

CLOSE = {"atol": 2e-4, "rtol": 2e-4}


def check_conformance(
    fit: Fit,
    of: Victim,
    reference: np.ndarray,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shape and direction-free laws of a `Fit`, on images some of which must differ in score."""
    before, reference_before = images.copy(), reference.copy()
    suspicion = fit(of, reference, 3)
    scores = suspicion(images)
    assert scores.shape == (len(images),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(reference, reference_before)

    order = np.random.default_rng(5).permutation(len(images))
    np.testing.assert_allclose(suspicion(images[order]), scores[order], **CLOSE)
    for i in (0, len(images) - 1):
        np.testing.assert_allclose(suspicion(images[i : i + 1]), scores[i : i + 1], **CLOSE)
    assert suspicion(images[:0]).shape == (0,)
    wide = images.astype(np.uint16) * 257
    np.testing.assert_allclose(suspicion(wide), scores, **CLOSE)

    np.testing.assert_array_equal(fit(of, reference, 3)(images), scores)
    kept = pickle.loads(pickle.dumps(suspicion))  # noqa: S301
    np.testing.assert_array_equal(kept(images), scores)
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "MICRO_BATCH", 7)
        np.testing.assert_allclose(suspicion(images), scores, **CLOSE)


def check_refusals(fit: Fit, of: Victim, reference: np.ndarray) -> None:
    """Too small a reference set is refused in one sentence, with the number."""
    for n in (0, 7):
        with pytest.raises(DataError, match=f"at least 8 .* got {n}"):
            fit(of, reference[:n], 1)
    fit(of, reference[:8], 1)


def check_network_is_left(fit: Fit, of: Victim, reference: np.ndarray, images: np.ndarray) -> None:
    """Mode, gradients and hooks are put back, though the network fail in the middle."""
    of.network.train()
    state = {name: value.clone() for name, value in of.network.state_dict().items()}

    def as_it_was() -> bool:
        return (
            of.network.training
            and all(p.requires_grad and p.grad is None for p in of.network.parameters())
            and all(not m._forward_hooks for m in of.network.modules())
            and all(torch.equal(state[k], v) for k, v in of.network.state_dict().items())
        )

    suspicion = fit(of, reference, 1)
    suspicion(images)
    assert as_it_was()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(of.network), "forward", _fail_after(2, type(of.network).forward))
        with pytest.raises(RuntimeError, match="midway"):
            suspicion(images)
    assert as_it_was()
    of.network.eval()


def _fail_after(count: int, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    calls = 0

    def fail(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > count:
            raise RuntimeError("midway")
        return forward(self, x)

    return fail
