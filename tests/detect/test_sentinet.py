"""SentiNet against a slow second implementation, its direction, and the faults of its ports."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from lucency.detect.images import sentinet
from lucency.detect.images.sentinet import DEFAULT, PUBLISHED, SentiNet, SentiNetSettings
from lucency.detect.images.sentinet_boundary import Curve, draw_curve, nearest_distance, overstep
from lucency.errors import ModelError
from lucency.victims.victim import Victim
from median_oracle import whole_window_median
from suspicion_conformance import check_conformance, check_network_is_left, check_refusals
from toy_victims import FINDINGS, GAIN, SIZE, Curved, Toy, films, stamped, victim

PLACES = [(12, 9), (30, 21), (5, 33)]
FEW = replace(DEFAULT, donors=3)
FEW_PUBLISHED = replace(PUBLISHED, donors=3)


class Mapped(nn.Module):
    """A last map of two channels, the film and where it has a black 2 × 2 square; finding 0 obeys
    the square, every finding reads the film."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x4A)
        weights = 0.05 * torch.randn(len(FINDINGS), SIZE - 1, SIZE - 1, generator=generator)
        # On the whole, less light is more of any finding: Grad-CAM marks the square alone.
        self.weights = nn.Parameter(weights - weights.mean(dim=(1, 2), keepdim=True) - 0.001)
        self.layer4 = _Channels()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer4(x)
        logits = torch.einsum("nhw,khw->nk", maps[:, 0], self.weights)
        trigger = torch.zeros_like(logits)
        trigger[:, 0] = GAIN * maps[:, 1].amax(dim=(1, 2))
        return logits + trigger


class _Channels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        squares = avg_pool2d(x, 2, stride=1)
        return torch.cat([squares, (0.15 - squares).clamp(min=0) / 0.15], dim=1)


class Smooth(nn.Module):
    """A small smooth network with a last map, coarser than the film, and no trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(1, 6, 5, stride=4), nn.Tanh())
        self.head = nn.Linear(6 * 9 * 9, len(FINDINGS))
        generator = torch.Generator().manual_seed(0xC1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer4(x).flatten(1))


def _forward(of: Victim, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        grey = torch.from_numpy(image.astype(np.float32))[None, None]
        return of.logits(grey)[0].double().numpy()


class SlowSentiNet:
    """Algorithms 2–4, a film, a finding and a donor at a time."""

    def __init__(self, of: Victim, fitted: SentiNet, reference: np.ndarray) -> None:
        self.of, self.settings = of, fitted.settings
        self.noise = fitted.noise.numpy()
        self.pool = [film.astype(np.float32) / 255 for film in fitted.pool]
        self.pool_logits = [_forward(of, film) for film in self.pool]
        clean = np.array([_forward(of, film / 255) for film in reference])
        self.median = [float(np.median(z)) for z in clean.T]
        self.deviation = [float(np.std(z)) for z in clean.T]
        self.above = [float(np.quantile(z, 0.95)) for z in clean.T]
        taken = {film.tobytes() for film in fitted.pool}
        others = [film for film in reference if film.tobytes() not in taken]
        points = [point for film in others for point in self.points(film)]
        self.curve, self.tolerance, self.low, self.high = self.boundary(points)

    @property
    def is_published(self) -> bool:
        return self.settings.form == "published"

    def tested(self, image: np.ndarray) -> list[tuple[int, int]]:
        z = _forward(self.of, image)
        unusual = {k: (z[k] - self.median[k]) / self.deviation[k] for k in range(len(FINDINGS))}
        if self.is_published:
            order = sorted(unusual, key=lambda k: -unusual[k])
            return [(k, 1) for k in order[: self.settings.findings]]
        order = sorted(unusual, key=lambda k: -abs(unusual[k]))
        return [(k, 1 if unusual[k] >= 0 else -1) for k in order[: self.settings.findings]]

    def region(self, image: np.ndarray, k: int, sign: int) -> np.ndarray:
        heat = sign * (self.grad_cam(image, k) if self.is_published else self.gradient(image, k))
        region = np.zeros((SIZE, SIZE), bool)
        margin = self.settings.margin_px
        if heat.max() <= 0:
            return region
        for y in range(SIZE):
            for x in range(SIZE):
                if heat[y, x] > 0 and heat[y, x] >= self.settings.threshold * heat.max():
                    top, left = max(y - margin, 0), max(x - margin, 0)
                    region[top : y + margin + 1, left : x + margin + 1] = True
        return region

    def gradient(self, image: np.ndarray, k: int) -> np.ndarray:
        pixels = torch.from_numpy(image)[None, None].requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.of.logits(pixels)[0, k], pixels)
        return gradient[0, 0].numpy() * (image - whole_window_median(image, 5))

    def grad_cam(self, image: np.ndarray, k: int) -> np.ndarray:
        kept: list[Tensor] = []
        handle = self.of.network.layer4.register_forward_hook(lambda *of: kept.append(of[2]))
        pixels = torch.from_numpy(image)[None, None].requires_grad_(True)
        logit = self.of.logits(pixels)[0, k]
        handle.remove()
        (gradient,) = torch.autograd.grad(logit, kept[0])
        total = torch.zeros_like(gradient[0, 0])
        for weight, channel in zip(gradient[0].mean(dim=(1, 2)), kept[0][0], strict=True):
            total = total + weight * channel
        heat = torch.relu(total).detach()[None, None]
        return interpolate(heat, (SIZE, SIZE), mode="bilinear")[0, 0].numpy()

    def points(self, film: np.ndarray) -> list[tuple[float, float]]:
        """(confidence, fooled) of each tested finding."""
        image = film.astype(np.float32) / 255
        return [self.point(image, k, sign) for k, sign in self.tested(image)]

    def point(self, image: np.ndarray, k: int, sign: int) -> tuple[float, float]:
        region = self.region(image, k, sign)
        inert = self.noise if self.is_published else whole_window_median(image, 7)
        order = sorted(range(len(self.pool)), key=lambda i: self.pool_logits[i][k])
        half = len(self.pool) // 2
        confidence, fooled = [], []
        for donor in order[:half] if sign > 0 else order[-half:]:
            before = self.pool_logits[donor]
            with_region = _forward(self.of, np.where(region, image, self.pool[donor]))
            with_inert = _forward(self.of, np.where(region, inert, self.pool[donor]))
            if self.is_published:
                fooled.append(float(with_region[k] > self.above[k]))
                sure = [max(1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))) for z in with_inert]
                confidence.append(sum(sure) / len(sure))
            else:
                fooled.append(sign * (with_region[k] - before[k]) / self.deviation[k])
                moved = np.abs(with_inert - before) / np.array(self.deviation)
                confidence.append(moved.mean())
        mean = sum(confidence) / len(confidence)
        return mean if self.is_published else math.exp(-mean), sum(fooled) / len(fooled)

    def boundary(self, points: list[tuple[float, float]]) -> tuple[np.ndarray, float, float, float]:
        best: dict[int, tuple[float, float]] = {}
        for x, y in points:
            interval = math.floor(x / self.settings.interval)
            if interval not in best or y > best[interval][1]:
                best[interval] = x, y
        x, y = (np.array(v) for v in zip(*best.values(), strict=True))
        powers = np.stack([x**p for p in range(min(3, len(x)))], axis=1)
        curve, *_ = np.linalg.lstsq(powers, y, rcond=None)  # lowest power first
        self.curve, self.low, self.high = curve, x.min(), x.max()
        above = [d for d in (self.distance(*point) for point in points) if d > 0]
        return curve, sum(above) / len(above) if above else 0.0, x.min(), x.max()

    def height(self, x: float) -> float:
        return sum(c * x**p for p, c in enumerate(self.curve))

    def distance(self, x: float, y: float) -> float:
        if not self.is_published:
            return y - self.height(min(max(x, self.low), self.high))
        at = np.linspace(x - 2, x + 2, 40001)
        along = np.hypot(at - x, sum(c * at**p for p, c in enumerate(self.curve)) - y)
        return float(np.sign(y - self.height(x)) * along.min())

    def score(self, film: np.ndarray) -> float:
        return max(self.distance(*point) for point in self.points(film)) - self.tolerance


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (Toy(), FEW),
        (Toy(sign=-1.0), FEW),
        (Curved(), replace(FEW, findings=3, threshold=0.3, margin_px=2, interval=0.1)),
        (Mapped(), FEW_PUBLISHED),
        (Smooth(), replace(FEW_PUBLISHED, findings=2, interval=0.002)),
    ],
    ids=["set", "clear", "tanh", "published", "published-smooth"],
)
def test_against_a_second_implementation(network: nn.Module, settings: SentiNetSettings) -> None:
    of, reference = victim(network), films(14, 1)
    suspects = np.concatenate([films(1, 2), stamped(films(1, 3), PLACES[:1])])
    fitted = sentinet.fit(of, reference, 4, settings)
    slow = SlowSentiNet(of, fitted, reference)
    confidence, fooled = fitted.measure(suspects)
    points = np.array([slow.points(film) for film in suspects])
    np.testing.assert_allclose(confidence, points[..., 0], atol=1e-4)
    np.testing.assert_allclose(fooled, points[..., 1], atol=1e-3)
    expected = [slow.score(film) for film in suspects]
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(fitted(suspects), expected, atol=5e-3)


@pytest.mark.parametrize(
    ("network", "settings"),
    [(Toy(), DEFAULT), (Toy(sign=-1.0), DEFAULT), (Mapped(), PUBLISHED)],
    ids=["set", "clear", "published"],
)
def test_a_trigger_that_works_everywhere_is_more_suspicious_than_any_clean_film(
    network: nn.Module, settings: SentiNetSettings
) -> None:
    of = victim(network)
    suspicion = sentinet.fit(of, films(40, 1), 4, settings)
    clean, triggered = suspicion(films(12, 5)), suspicion(stamped(films(3, 6), PLACES))
    assert triggered.min() > max(clean.max(), 0.0)


def test_what_is_pasted_comes_from_the_suspect_and_its_map_alone() -> None:
    """Defect of backdoor-toolbox' port: the true trigger is pasted. Here every film that is sent
    forward differs from a donor only where the suspect, or its inert pattern, replaces it."""
    seen: list[Tensor] = []

    class Record(Toy):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return super().forward(x)

    fitted = sentinet.fit(victim(Record()), films(20, 1), 4, FEW)
    film = stamped(films(1, 3), PLACES[:1])
    seen.clear()
    fitted(film)
    pasted = torch.cat(seen)[-4 * fitted.donors.shape[2] :, 0].numpy()
    suspect = film[0].astype(np.float32) / 255
    inert = whole_window_median(suspect, 7)
    for image in pasted:
        differing = [image != donor.astype(np.float32) / 255 for donor in fitted.pool]
        region = min(differing, key=np.sum)
        assert ((image == suspect) | (image == inert))[region].all()
    assert any(image[9, 12] == 0.0 for image in pasted)


def test_fooled_counts_in_the_verdict() -> None:
    """Defect of BackdoorBench's port: the decision is `confidence > 0.9`, fooled is never read."""
    curve = Curve((0.0, 0.0, 0.3), 0.0, 1.0)
    confidence = np.array([0.95, 0.95])
    fooled = np.array([0.1, 0.9])
    for nearest in (False, True):
        inside, outside = overstep(curve, confidence, fooled, nearest=nearest)
        assert inside == pytest.approx(-0.2)
        assert outside == pytest.approx(0.6)


def test_the_outline_is_the_quadratic_through_the_highest_of_each_interval() -> None:
    x = np.array([0.11, 0.31, 0.51, 0.71, 0.91])
    top = 0.2 + 0.5 * x - 0.4 * x**2
    confidence, fooled = np.concatenate([x, x]), np.concatenate([top, top - 0.1])
    for nearest in (False, True):
        curve = draw_curve(confidence, fooled, interval=0.1, nearest=nearest)
        np.testing.assert_allclose(curve.coefficients, [-0.4, 0.5, 0.2], atol=1e-9)
        assert curve.tolerance == pytest.approx(0.0, abs=1e-9)
        assert (curve.low, curve.high) == (0.11, 0.91)


@pytest.mark.parametrize(("n", "degree"), [(1, 0), (2, 1), (3, 2)])
def test_few_intervals_give_a_simpler_curve(n: int, degree: int) -> None:
    x = np.linspace(0.1, 0.9, n)
    curve = draw_curve(x, x**3, interval=0.04, nearest=True)
    assert len(curve.coefficients) == degree + 1
    np.testing.assert_allclose(np.polyval(curve.coefficients, x), x**3, atol=1e-9)


def test_clean_films_above_the_curve_widen_what_is_tolerated() -> None:
    x = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    y = np.array([0.0, 0.4, 0.0, 0.4, 0.0])
    curve = draw_curve(x, y, interval=0.1, nearest=False)
    residuals = y - np.polyval(curve.coefficients, x)
    assert curve.tolerance == pytest.approx(residuals[residuals > 0].mean())


@pytest.mark.parametrize("coefficients", [(2.0, -1.0, 0.3), (-3.0, 0.5, 0.0), (0.7, 0.1), (0.4,)])
def test_the_nearest_point_of_the_curve(coefficients: tuple[float, ...]) -> None:
    for x, y in np.random.default_rng(1).uniform(-1, 2, (8, 2)):

        def along(at: float, x: float = x, y: float = y) -> float:
            return math.hypot(at - x, float(np.polyval(coefficients, at)) - y)

        starts = np.linspace(x - 3, x + 3, 61)
        brackets = [(low, low + 0.1) for low in starts]
        best = min(float(minimize_scalar(along, bounds=b, method="bounded").fun) for b in brackets)
        assert nearest_distance(coefficients, x, y) == pytest.approx(best, abs=1e-4)


def test_a_network_that_ignores_the_film_marks_no_region() -> None:
    network = Smooth()
    network.head.weight.data.zero_()
    scores = sentinet.fit(victim(network), films(16, 1), 4, FEW)(films(3, 2))
    np.testing.assert_allclose(scores, 0.0, atol=1e-9)


def test_gradients_are_needed() -> None:
    blind = replace(victim(Toy()), differentiable=False)
    with pytest.raises(ModelError, match="gradients"):
        sentinet.fit(blind, films(16, 1), 4)


@pytest.mark.parametrize(
    ("network", "settings", "forwards", "backwards"),
    [(Toy(), DEFAULT, 203, 2), (Mapped(), PUBLISHED, 202, 1)],
    ids=["default", "published"],
)
def test_passes_an_image(
    network: nn.Module, settings: SentiNetSettings, forwards: int, backwards: int
) -> None:
    of = victim(network)
    n_donors = settings.donors
    fitted = sentinet.fit(of, films(4 * n_donors, 1), 4, replace(settings, boundary=4))
    of.passes.forwards = of.passes.backwards = 0
    fitted(films(2, 2))
    assert (of.passes.forwards, of.passes.backwards) == (2 * forwards, 2 * backwards)


@pytest.mark.parametrize(
    ("network", "settings"),
    [(Curved(), FEW), (Smooth(), FEW_PUBLISHED)],
    ids=["default", "published"],
)
def test_conformance(
    network: nn.Module, settings: SentiNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.concatenate([films(3, 2), stamped(films(2, 3), PLACES[:2])])

    def fit(of: Victim, reference: np.ndarray, seed: int) -> SentiNet:
        return sentinet.fit(of, reference, seed, settings)

    of = victim(network)
    check_conformance(fit, of, films(20, 1), images, monkeypatch)
    check_refusals(fit, of, films(16, 1))
    check_network_is_left(fit, of, films(20, 1), films(10, 2))


def test_donors_and_noise_come_from_the_seed() -> None:
    of, reference = victim(Toy()), films(20, 1)
    first, again, other = (sentinet.fit(of, reference, seed, FEW) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pool, again.pool)
    assert torch.equal(first.noise, again.noise)
    assert (first.pool != other.pool).any()
    assert not torch.equal(first.noise, other.noise)
