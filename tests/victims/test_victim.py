"""A victim: logits, gradients, counted passes, and networks that are put back as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, ModelError
from lucency.victims.architectures import ARCHITECTURES, build, channels_last
from lucency.victims.victim import Passes, Victim, frozen, normalise, predict, to_grey


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_a_function_of_its_seed(name):
    before = torch.random.get_rng_state()
    first, again, other = (build(name, 1, 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_gives_float32_logits_even_under_bf16(name, channels):
    network = build(name, channels, 5, 0).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.zeros(2, channels, 32, 32))
    assert (logits.shape, logits.dtype) == ((2, 5), torch.float32)


def test_densenet121_has_the_published_weights():
    n = sum(p.numel() for p in build("densenet121", 3, 1000, 0).parameters())
    assert n == 7_978_856


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"densenet121, densenet-small, got 'resnet'"):
        build("resnet", 1, 3, 0)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_to_grey_scales_the_stored_range(dtype, white):
    grey = to_grey(np.array([[[0, white], [1, white // 2]]], dtype), torch.device("cpu"))
    assert (grey.shape, grey.dtype) == ((1, 1, 2, 2), torch.float32)
    expected = [0, 1, 1 / white, (white // 2) / white]
    assert grey.flatten().tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [(1, (0.5,), (0.25,)), (3, (0.5,), (0.25,)), (3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))],
)
def test_normalise_is_minus_mean_over_std(channels, mean, std):
    grey = torch.rand(2, 1, 4, 4)
    contract = InputContract(size=32, channels=channels, mean=mean, std=std)
    batch = normalise(grey, contract)
    assert batch.shape == (2, channels, 4, 4)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for c in range(channels):
        expected = (grey[:, 0] - mean[c % len(mean)]) / std[c % len(std)]
        torch.testing.assert_close(batch[:, c], expected)


def test_three_channels_are_three_equal_ones(films):
    network = build("densenet-small", 3, 3, seed=4).eval()
    victim = Victim(network, InputContract(size=32, channels=3), ("A", "B", "C"))
    grey = (torch.from_numpy(films).float() / 255)[:, None]
    with torch.inference_mode():
        expected = network(((grey - 0.5) / 0.25).repeat(1, 3, 1, 1))
    np.testing.assert_allclose(predict(victim, films), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predict_is_the_network_whatever_the_batch(victim, films, batch_size):
    logits = predict(victim, films, batch_size=batch_size)
    with torch.inference_mode():
        each = [
            victim.network(normalise(to_grey(f[None], victim.device), victim.contract))
            for f in films
        ]
    np.testing.assert_allclose(logits, torch.cat(each).numpy(), rtol=1e-4, atol=1e-5)
    assert logits.dtype == np.float32
    assert victim.passes == Passes(forwards=7, backwards=0)


def test_predict_of_no_films_is_empty(victim, films):
    assert predict(victim, films[:0]).shape == (0, 3)


class Broken(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x.mean((1, 2, 3)) * 0 + self.value], 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_predict_refuses_logits_that_are_not_finite(films, value):
    victim = Victim(Broken(value), InputContract(size=32), ("A", "B"))
    with pytest.raises(ModelError, match="finite logits, got 7"):
        predict(victim, films)


def test_gradients_are_counted_and_right(victim, films):
    grey = to_grey(films[:2], victim.device).requires_grad_(True)
    with frozen(victim.network):
        gradient = victim.gradient(victim.logits(grey)[:, 1].sum(), grey)
    assert victim.passes == Passes(forwards=2, backwards=2)
    assert victim.passes.equivalents == 6
    step = 1e-2 * gradient / gradient.norm()
    with torch.inference_mode():
        up, down = (victim.logits(grey + s * step)[:, 1].sum() for s in (1, -1))
    assert float(up - down) / 2e-2 == pytest.approx(float(gradient.norm()), rel=0.05)
    assert all(p.grad is None for p in victim.network.parameters())


def test_bf16_changes_little_and_logits_stay_float32(victim, films):
    exact, rough = predict(victim, films), predict(replace(victim, bf16=True), films)
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * max(1, np.abs(exact).max())


def state(network):
    return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


@pytest.mark.parametrize("mode", ["training", "evaluation", "mixed"])
@pytest.mark.parametrize("fails", [False, True])
def test_frozen_puts_everything_back(mode, fails):
    network = channels_last(build("densenet-small", 1, 2, 0)).train(mode != "evaluation")
    if mode == "mixed":
        next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).eval()
        next(network.parameters()).requires_grad_(False)
    before = state(network)
    try:
        with frozen(network):
            modes, required = state(network)
            assert not any(modes)
            assert not any(required)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert state(network) == before
