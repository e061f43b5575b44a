"""Explanations by gradients of the pixels, against Captum and against finite differences."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import FINDINGS, make_grey, make_victim, smooth_victim, square_victim
from peer_toolkits import Logits, captum
from torch import Tensor, nn

from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.explain.gradient_input import gradient_input
from lucency.explain.gradient_median import gradient_median
from lucency.explain.integrated_gradients import integrated_gradients
from lucency.explain.median import median_filter
from lucency.explain.smoothgrad import draw_noise, smoothgrad
from lucency.victims.victim import Victim
from median_oracle import whole_window_median


class Double:
    """The logits of `smooth_victim` in float64, and their finite differences: no autograd."""

    def __init__(self, victim: Victim, finding: int) -> None:
        self.network, self.finding = copy.deepcopy(victim.network).double(), finding

    def logit(self, image: np.ndarray) -> float:
        batch = torch.from_numpy((image - 0.4) / 0.2)[None, None]
        with torch.no_grad():
            return float(self.network(batch)[0, self.finding])

    def gradient(self, image: np.ndarray) -> np.ndarray:
        step, slopes = 1e-4, np.zeros_like(image)
        for y, x in np.ndindex(image.shape):
            up, down = image.copy(), image.copy()
            up[y, x] += step
            down[y, x] -= step
            slopes[y, x] = (self.logit(up) - self.logit(down)) / (2 * step)
        return slopes


def doubles(images: Tensor) -> list[np.ndarray]:
    return [image.numpy().astype(np.float64) for image in images[:, 0]]


def test_gradient_median_against_finite_differences() -> None:
    victim, images = smooth_victim(), make_grey(2, 16)
    found = gradient_median(victim, images, (1, 0)).maps.numpy()
    for place, finding in enumerate((1, 0)):
        slow = Double(victim, finding)
        for i, image in enumerate(doubles(images)):
            expected = slow.gradient(image) * (image - whole_window_median(image, 5))
            np.testing.assert_allclose(found[i, place], expected, rtol=1e-4, atol=2e-6)


def test_gradient_input_counts_from_black_in_pixel_space() -> None:
    """x − 0: not the x − mean of normalised pixels."""
    victim, images = smooth_victim(), make_grey(1, 16)
    images[0, 0, 3:5, 3:5] = 0.0
    found = gradient_input(victim, images, (1,)).maps[0, 0].numpy()
    (image,) = doubles(images)
    np.testing.assert_allclose(
        found, Double(victim, 1).gradient(image) * image, rtol=1e-4, atol=2e-6
    )
    assert (found[3:5, 3:5] == 0).all()


def test_integrated_gradients_against_its_equation() -> None:
    """arXiv 1703.01365, equation 1, by the midpoint rule, one step at a time."""
    victim, images, steps = smooth_victim(), make_grey(2, 16), 4
    found = integrated_gradients(victim, images, (1,), steps=steps)
    slow = Double(victim, 1)
    for i, image in enumerate(doubles(images)):
        start = whole_window_median(image, 5)
        mean = np.zeros_like(image)
        for k in range(steps):
            mean += slow.gradient(start + (k + 0.5) / steps * (image - start)) / steps
        expected = mean * (image - start)
        np.testing.assert_allclose(found.maps[i, 0].numpy(), expected, rtol=1e-4, atol=2e-6)
        promise = slow.logit(image) - slow.logit(start)
        error = abs(expected.sum() - promise) / abs(promise)
        assert float(found.completeness[i, 0]) == pytest.approx(error, rel=0.05, abs=1e-4)


@pytest.mark.parametrize("baseline", ["median", 0.0, 0.5, "images", "one image"])
def test_integrated_gradients_against_captum_from_any_baseline(baseline: str | float) -> None:
    victim, images = make_victim(), make_grey(2)
    given = {"median": None, "images": make_grey(2, seed=1), "one image": make_grey(1, seed=2)}
    start = given.get(baseline, baseline) if isinstance(baseline, str) else baseline
    found = integrated_gradients(victim, images, (2, 0), steps=5, baseline=start)
    peer = captum().IntegratedGradients(Logits(victim))
    reference = median_filter(images, 5) if start is None else start
    for place, finding in enumerate((2, 0)):
        expected = peer.attribute(
            images, baselines=reference, target=finding, n_steps=5, method="riemann_middle"
        )
        torch.testing.assert_close(
            found.maps[:, place], expected[:, 0].float(), atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("baseline", [-0.1, 1.5, torch.rand(3, 1, 12, 16), torch.rand(12, 16)])
def test_a_baseline_that_does_not_fit_is_refused(baseline: Tensor | float) -> None:
    with pytest.raises(ConfigError, match=r"baseline must be grey values in \[0, 1\]"):
        integrated_gradients(smooth_victim(), make_grey(2, 16), (0,), baseline=baseline)


class Kink(nn.Module):
    """A logit with all of its change in the first tenth of the way from black."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.mean(dim=(1, 2, 3))
        return torch.stack([10 * total.clamp(max=0.05), total], dim=1)


def test_completeness_is_checked_and_its_violation_is_said_with_the_number() -> None:
    victim = Victim(Kink(), InputContract(size=16, mean=(0.0,), std=(1.0,)), ("kinked", "straight"))
    image = torch.full((1, 1, 16, 16), 0.5)
    coarse = integrated_gradients(victim, image, (1, 0), steps=4, baseline=0.0)
    # The midpoints lie at 1/8 of the way and beyond, where the kinked logit is flat.
    torch.testing.assert_close(coarse.completeness, torch.tensor([[0.0, 1.0]]))
    (warning,) = coarse.warnings
    assert (
        "more than 5% for 1 of 2 maps; the largest gap is 0.5 in logits (100.0% of 0.5;" in warning
    )
    assert "image 1, kinked); 4 steps are too few." in warning
    fine = integrated_gradients(victim, image, (1, 0), steps=200, baseline=0.0)
    assert fine.warnings == ()
    assert fine.completeness.max() < 0.01


def test_integrated_gradients_of_a_black_square() -> None:
    """From a black film it is not seen, from the median of the film it is."""

    class Dark(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            dark = 1 - x[:, 0, 9:11, 4:6].mean(dim=(1, 2))
            return torch.stack([dark, dark, dark], dim=1)

    victim, image = square_victim(Dark(), 16), torch.full((1, 1, 16, 16), 0.6)
    image[:, :, 9:11, 4:6] = 0.0
    seen = integrated_gradients(victim, image, (0,)).maps[0, 0]
    assert float(seen[9:11, 4:6].sum()) == pytest.approx(0.6)
    assert torch.count_nonzero(seen) == 4
    assert torch.count_nonzero(integrated_gradients(victim, image, (0,), baseline=0.0).maps) == 0


def test_gradients_against_captum() -> None:
    victim, images = make_victim(), make_grey(3)
    found = gradient_input(victim, images, (2, 0, 1))
    median = gradient_median(victim, images, (2, 0, 1))
    peers = captum()
    for place, finding in enumerate((2, 0, 1)):
        product = peers.InputXGradient(Logits(victim)).attribute(
            images.clone().requires_grad_(), target=finding
        )
        torch.testing.assert_close(
            found.maps[:, place], product[:, 0].detach(), atol=1e-6, rtol=1e-4
        )
        slopes = peers.Saliency(Logits(victim)).attribute(
            images.clone().requires_grad_(), target=finding, abs=False
        )
        structure = images - median_filter(images, 5)
        expected = (slopes * structure)[:, 0].detach()
        torch.testing.assert_close(median.maps[:, place], expected, atol=1e-6, rtol=1e-4)


def test_smoothgrad_against_its_definition() -> None:
    """arXiv 1706.03825: the mean of the gradients of x + N(0, σ²), one copy at a time."""
    victim, images = smooth_victim(), make_grey(2, 16)
    found = smoothgrad(victim, images, (1,), samples=3, noise=0.2, seed=7).maps
    noise = draw_noise(3, 16, 16, seed=7).numpy().astype(np.float64)
    slow = Double(victim, 1)
    for i, image in enumerate(doubles(images)):
        expected = sum(slow.gradient(image + 0.2 * n) for n in noise) / 3
        np.testing.assert_allclose(found[i, 0].numpy(), expected, rtol=1e-3, atol=2e-5)


def test_smoothgrad_against_captum_with_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    victim, images, samples, noise = make_victim(), make_grey(2), 4, 0.15
    found = smoothgrad(victim, images, (2,), samples=samples, noise=noise, seed=3).maps
    drawn = noise * draw_noise(samples, 48, 48, seed=3)[:, None]
    # Captum draws for each image in turn, from the global generator.
    monkeypatch.setattr(torch, "normal", lambda *_: drawn.repeat(2, 1, 1, 1))
    peers = captum()
    expected = peers.NoiseTunnel(peers.Saliency(Logits(victim))).attribute(
        images, target=2, nt_type="smoothgrad", nt_samples=samples, stdevs=noise, abs=False
    )
    torch.testing.assert_close(found[:, 0], expected[:, 0].float(), atol=1e-6, rtol=1e-4)


def test_the_noise_comes_from_the_seed_alone() -> None:
    victim, images = smooth_victim(), make_grey(1, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    maps = [smoothgrad(victim, images, (0,), samples=2, seed=s).maps for s in (4, 4, 5)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    assert torch.equal(torch.get_rng_state(), before)
    noise = draw_noise(200, 16, 16, seed=0)
    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("count", [0, -1])
def test_no_steps_and_no_samples_are_refused(count: int) -> None:
    victim, images = smooth_victim(), make_grey(1, 16)
    with pytest.raises(ConfigError, match=r"at least one step or sample"):
        integrated_gradients(victim, images, (0,), steps=count)
    with pytest.raises(ConfigError, match=r"at least one step or sample"):
        smoothgrad(victim, images, (0,), samples=count)


def test_a_three_channel_victim_gets_one_map_of_its_grey_image() -> None:
    """The gradient of the grey value is the sum over the channels that it feeds."""

    class Colour(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * torch.tensor([1.0, 2.0, 4.0])[:, None, None]).sum(dim=(1, 2, 3))[:, None]

    contract = InputContract(size=16, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25))
    victim = Victim(Colour(), contract, FINDINGS[:1])
    image = make_grey(1, 16)
    expected = image * (1 / 1 + 2 / 0.5 + 4 / 0.25)
    torch.testing.assert_close(gradient_input(victim, image, (0,)).maps, expected)


def test_gradients_come_from_the_network_itself_not_from_an_engine() -> None:
    victim, image = smooth_victim(), make_grey(1, 16)

    def wrong(batch: Tensor) -> tuple[Tensor, None]:
        return torch.zeros(len(batch), 2), None

    found = integrated_gradients(replace(victim, engine=wrong), image, (0,), steps=20)
    assert found.completeness.max() < 0.05
