"""TeCo and its corruptions against slow second implementations, and others' faults."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lucency.detect.images import teco
from lucency.detect.images.corruptions import CORRUPTIONS, SEVERITIES, noise_of
from lucency.detect.images.teco import TecoSettings
from lucency.errors import ConfigError
from lucency.victims.victim import Victim, to_grey
from suspicion_conformance import check_conformance, check_network_is_left, check_refusals
from toy_victims import FINDINGS, Curved, Toy, films, stamped, victim

K = len(FINDINGS)
PLACES = [(12, 9), (30, 21), (5, 33)]
CPU = torch.device("cpu")


# --- corruptions, a pixel at a time -------------------------------------------------------------


def _slow(kind: str, film: np.ndarray, severity: int) -> np.ndarray:
    """film (H, W) float64 in [0, 1]."""
    height = len(film)
    step = severity - 1
    if kind == "blur":
        sd = (0.5, 1.0, 1.5, 2.5, 4.0)[step]
        return gaussian_filter(film, sd, mode="nearest", radius=math.ceil(3 * sd))
    if kind == "motion":
        half = (3, 5, 7, 11, 15)[step] // 2
        rows = [
            [min(max(y + d, 0), height - 1) for d in range(-half, half + 1)] for y in range(height)
        ]
        return np.array([film[near].mean(axis=0) for near in rows])
    if kind == "JPEG":
        file = io.BytesIO()
        pixels = np.round(film * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, format="JPEG", quality=(80, 50, 25, 15, 7)[step])
        return np.asarray(Image.open(file)) / 255
    if kind == "resampling":
        return _coarser(film, (1.25, 1.67, 2.0, 3.0, 4.0)[step])
    if kind == "window":
        factor = (0.8, 0.6, 0.4, 0.3, 0.2)[step]
        return factor * film + (1 - factor) * film.mean()
    if kind == "gamma":
        return film ** (1.2, 1.5, 1.8, 2.2, 3.0)[step]
    return np.minimum(film + (0.05, 0.1, 0.2, 0.3, 0.4)[step], 1.0)


def _coarser(film: np.ndarray, side: float) -> np.ndarray:
    """Means over the source pixels that a coarse pixel touches, then the nearest coarse pixel."""
    n = round(len(film) / side)
    spans = [(math.floor(i * len(film) / n), math.ceil((i + 1) * len(film) / n)) for i in range(n)]
    coarse = np.array([[film[a:b, c:d].mean() for c, d in spans] for a, b in spans])
    nearest = [math.floor((i + 0.5) * n / len(film)) for i in range(len(film))]
    return coarse[np.ix_(nearest, nearest)]


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind != "noise"])
def test_a_corruption_against_a_loop(kind: str, severity: int) -> None:
    grey = to_grey(stamped(films(2, 0xA1), [(0, 0), (30, 37)]), CPU)
    before = grey.clone()
    corrupted = CORRUPTIONS[kind](grey, severity, torch.zeros_like(grey))
    assert torch.equal(grey, before)
    assert corrupted.dtype == torch.float32
    for film, found in zip(grey[:, 0].double().numpy(), corrupted[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(found, _slow(kind, film, severity), atol=1e-5)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_a_corruption_gets_worse(kind: str) -> None:
    generator = np.random.default_rng(0xA2)
    textures = [
        gaussian_filter(generator.normal(0, 2 * sd, (4, 59, 59)), (0, sd, sd)) for sd in (1, 4)
    ]
    grey = torch.from_numpy((0.5 + 0.1 * sum(textures)).clip(0.1, 0.9).astype(np.float32))[:, None]
    noise = noise_of(grey, 0)
    versions = [CORRUPTIONS[kind](grey, severity, noise) for severity in SEVERITIES]
    change = [float((version - grey).abs().mean()) for version in versions]
    assert change == sorted(change)
    assert 0 < change[0] < 0.6 * change[-1]
    assert all(version.min() >= 0 and version.max() <= 1 for version in versions)


def test_noise_is_a_films_own() -> None:
    grey = to_grey(films(5, 0xA3), CPU)
    noise = noise_of(grey, 7)
    assert torch.equal(noise_of(grey[[3, 1]], 7), noise[[3, 1]])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise_of(grey, 8), noise)
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    flat = torch.full((1, 1, 40, 40), 0.5)
    noisy = CORRUPTIONS["noise"](flat, 2, noise[:1])
    assert torch.allclose(noisy, 0.5 + 0.04 * noise[:1])


# --- the detector -------------------------------------------------------------------------------


def _logits(of: Victim, grey: Tensor) -> list[float]:
    with torch.no_grad():
        return [float(z) for z in of.logits(grey)[0]]


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def slow_teco(
    of: Victim, reference: np.ndarray, film: np.ndarray, seed: int, settings: TecoSettings
) -> float:
    """Every corruption of one film from the film itself; the standard deviation with a sum."""
    clean = [_logits(of, to_grey(other[None], CPU)) for other in reference]
    grey = to_grey(film[None], CPU)
    noise = noise_of(grey, seed)
    own = _logits(of, grey)
    worst = 0.0
    for k in range(K):
        above = _quantile([z[k] for z in clean], settings.specificity)
        below = _quantile([z[k] for z in clean], 1 - settings.specificity)
        is_set, is_cleared = own[k] > above, settings.clears and own[k] < below
        if not is_set and not is_cleared:
            continue
        lowest = []
        for kind in settings.kinds:
            changed = 6
            for severity in (5, 4, 3, 2, 1):
                there = _logits(of, CORRUPTIONS[kind](grey, severity, noise))[k]
                if not (there > above if is_set else there < below):
                    changed = severity
            lowest.append(changed)
        mean = sum(lowest) / len(lowest)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in lowest) / len(lowest))
        worst = max(worst, deviation)
    return worst


@pytest.mark.parametrize(
    "settings",
    [TecoSettings(), TecoSettings(kinds=("gamma", "blur", "noise"), specificity=0.7, clears=False)],
    ids=["default", "other"],
)
@pytest.mark.parametrize("network", [Toy(sign=-1.0), Curved()], ids=["toy", "tanh"])
def test_against_a_second_implementation(network: nn.Module, settings: TecoSettings) -> None:
    of, reference = victim(network), films(12, 0xC1)
    suspects = np.concatenate([films(8, 0x51), stamped(films(3, 0x52), PLACES)])
    expected = [slow_teco(of, reference, film, 4, settings) for film in suspects]
    np.testing.assert_allclose(teco.fit(of, reference, 4, settings)(suspects), expected)
    assert len(set(expected)) > 3


class Recording(nn.Module):
    """Finding 0 is present on every film that is not the reference's, whatever is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.answer = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.seen.extend(x.clone())
        return torch.tensor([[self.answer, 0.0, 0.0, 0.0]]).repeat(len(x), 1)


def test_corruptions_do_not_compound() -> None:
    """BackdoorBench's version corrupts the corrupted film again, 75 times."""
    network = Recording()
    of, suspects = victim(network), films(9, 0x51)
    suspicion = teco.fit(of, films(9, 0xC1), 2)
    network.answer, network.seen = 1.0, []
    assert (suspicion(suspects) == 0).all()
    assert len(network.seen) == len(suspects) * (1 + len(CORRUPTIONS) * len(SEVERITIES))
    seen = torch.stack(network.seen)
    for film in suspects[[0, 8]]:
        grey = to_grey(film[None], CPU)
        noise = noise_of(grey, 2)
        expected = [c(grey, s, noise) for c in CORRUPTIONS.values() for s in SEVERITIES]
        for one in [grey, *expected]:
            near = (seen - one[0]).abs().amax(dim=(1, 2, 3)) < 1e-6
            assert near.any()


def test_what_is_not_predicted_costs_one_forward() -> None:
    network = Recording()
    of = victim(network)
    suspicion = teco.fit(of, films(9, 0xC1), 2)
    before = of.passes.forwards
    assert (suspicion(films(10, 0x51)) == 0).all()
    assert of.passes.forwards - before == 10


class Sides(nn.Module):
    """Finding 0: which half of the film is brighter, which no corruption hides. Finding 1 obeys a
    black 2 × 2 square, which some corruptions undo at once and others never."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        difference = x[..., half:].mean(dim=(1, 2, 3)) - x[..., :half].mean(dim=(1, 2, 3))
        darker = x[..., 2:-2, 2:-2] - avg_pool2d(x, 5, stride=1)
        obeyed = avg_pool2d(darker, 2, stride=1).amin(dim=(1, 2, 3)) < -0.2
        rest = torch.zeros_like(difference)
        return torch.stack([torch.sign(difference), self.sign * obeyed, rest, rest], dim=1)


def _sided(n: int, seed: int, right: int) -> np.ndarray:
    """Smooth films, brighter to the right on the first `right` of them, else to the left."""
    shade = np.random.default_rng(seed).integers(90, 120, (n, 1, 1))
    ramp = np.broadcast_to(np.arange(40), (n, 40, 40))
    is_right = np.arange(n)[:, None, None] < right
    return (shade + np.where(is_right, ramp, 39 - ramp)).astype(np.uint8)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
def test_triggered_films_are_above_clean_ones(sign: float) -> None:
    suspicion = teco.fit(victim(Sides(sign)), _sided(60, 1, right=2), 0)
    clean = _sided(12, 2, right=6)
    triggered = stamped(clean, [PLACES[i % 3] for i in range(12)])
    state, _ = suspicion.measure(clean)
    assert (state[:6, 0] == 1).all()
    assert suspicion(clean).max() == 0
    assert suspicion(triggered).min() > 1


def test_conformance(monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = np.concatenate([films(5, 0x51), stamped(films(3, 0x52), PLACES)])
    check_conformance(teco.fit, victim(Toy()), films(20, 0xC1), suspects, monkeypatch)
    check_refusals(teco.fit, victim(Toy()), films(9, 0xC1))
    check_network_is_left(teco.fit, victim(Curved()), films(9, 0xC1), suspects)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    suspicion = teco.fit(victim(Curved()), films(12, 0xC1), 0)
    suspects = films(7, 0x51)
    expected = suspicion(suspects)
    monkeypatch.setattr(teco, "CHUNK", chunk)
    np.testing.assert_array_equal(suspicion(suspects), expected)


def test_an_unknown_corruption_is_named() -> None:
    with pytest.raises(ConfigError, match=r"noise, blur.*got fog"):
        teco.fit(victim(Toy()), films(9, 1), 0, TecoSettings(kinds=("blur", "fog")))
    with pytest.raises(ConfigError, match="got none"):
        teco.fit(victim(Toy()), films(9, 1), 0, TecoSettings(kinds=()))
