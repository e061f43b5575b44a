"""SCALE-UP against a slow second implementation, its direction, and the faults of its ports."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from isolated_square import IsolatedSquare
from lucency.detect.images import scale_up
from lucency.detect.images.scale_up import DEFAULT, PUBLISHED, ScaleUpSettings
from lucency.victims.victim import Victim
from suspicion_conformance import check_conformance, check_network_is_left, check_refusals
from toy_victims import FINDINGS, Curved, films, stamped, victim

PLACES = [(12, 9), (30, 21), (5, 33)]
OTHER = ScaleUpSettings((0.0, 0.4), (0.5, 1.7, 4.0), specificity=0.8, clears=True, fewest=3)
WHITE = 255


def _brightened(images: np.ndarray) -> np.ndarray:
    """A copy with a white square on each film."""
    copies = images.copy()
    for film, (x, y) in zip(copies, PLACES, strict=True):
        film[y : y + 2, x : x + 2] = WHITE
    return copies


def _logits(of: Victim, image: np.ndarray) -> list[float]:
    with torch.no_grad():
        grey = torch.from_numpy(image.astype(np.float32))[None, None]
        return [float(z) for z in of.logits(grey)[0]]


class SlowScaleUp:
    """Equations 2–4, a finding, a film and a copy at a time."""

    def __init__(self, of: Victim, reference: np.ndarray, settings: ScaleUpSettings) -> None:
        self.of, self.settings = of, settings
        clean = [_logits(of, film / 255) for film in reference]
        columns = list(zip(*clean, strict=True))
        self.above = [np.quantile(z, settings.specificity) for z in columns]
        self.below = [np.quantile(z, 1 - settings.specificity) for z in columns]
        self.asked = [
            (pivot, side, k)
            for pivot in settings.pivots
            for side in ((1, -1) if settings.clears else (1,))
            for k in range(len(FINDINGS))
        ]
        self.clean = [self.consistencies(film) for film in reference]

    def is_predicted(self, logits: list[float], side: int, k: int) -> bool:
        return logits[k] > self.above[k] if side > 0 else logits[k] < self.below[k]

    def consistencies(self, film: np.ndarray) -> dict[tuple[float, int, int], float]:
        """SPC of each finding that is predicted, for each pivot."""
        image = film / 255
        own = _logits(self.of, image)
        found = {}
        for pivot, side, k in self.asked:
            if self.is_predicted(own, side, k):
                same = 0
                for factor in self.settings.factors:
                    copy = np.minimum(np.maximum(pivot + factor * (image - pivot), 0.0), 1.0)
                    same += self.is_predicted(_logits(self.of, copy), side, k)
                found[pivot, side, k] = same / len(self.settings.factors)
        return found

    def standardise(self, asked: tuple[float, int, int], consistency: float) -> float:
        if not self.settings.normalise:
            return consistency
        pivot, side, _ = asked
        sample = [film[asked] for film in self.clean if asked in film]
        if len(sample) < self.settings.fewest:
            sample = [
                value
                for film in self.clean
                for (p, s, _), value in film.items()
                if (p, s) == (pivot, side)
            ]
        mean = sum(sample) / len(sample) if sample else 0.0
        variance = sum((v - mean) ** 2 for v in sample) / len(sample) if sample else 0.0
        return (consistency - mean) / max(math.sqrt(variance), 1 / len(self.settings.factors))

    def score(self, film: np.ndarray) -> float:
        found = self.consistencies(film)
        if not found:
            return min(self.standardise(asked, 0.0) for asked in self.asked)
        return max(self.standardise(asked, value) for asked, value in found.items())


@pytest.mark.parametrize(
    "settings",
    [replace(DEFAULT, specificity=0.8), replace(PUBLISHED, specificity=0.6), OTHER],
    ids=["default", "published", "other"],
)
@pytest.mark.parametrize("network", [IsolatedSquare(), Curved()], ids=["square", "tanh"])
def test_against_a_second_implementation(
    network: torch.nn.Module, settings: ScaleUpSettings
) -> None:
    of, reference = victim(network), films(16, 1)
    suspects = np.concatenate([films(4, 2), stamped(films(3, 3), PLACES)])
    slow = SlowScaleUp(of, reference, settings)
    found = scale_up.fit(of, reference, 0, settings)(suspects)
    expected = [slow.score(film) for film in suspects]
    assert len(set(expected)) > 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("settings", [DEFAULT, PUBLISHED], ids=["default", "published"])
def test_a_trigger_that_scaling_leaves_is_more_suspicious_than_any_clean_film(
    settings: ScaleUpSettings,
) -> None:
    of = victim(IsolatedSquare())
    suspicion = scale_up.fit(of, films(60, 1), 0, settings)
    triggered = suspicion(stamped(films(3, 6), PLACES))
    assert triggered.min() > suspicion(films(40, 5)).max()


def test_a_white_trigger_is_erased_by_multiplication_and_found_about_mid_grey() -> None:
    of = victim(IsolatedSquare(bright=True))
    clean, triggered = films(40, 5), _brightened(films(3, 6))
    multiplied = scale_up.fit(of, films(60, 1), 0, PUBLISHED)
    np.testing.assert_array_equal(multiplied(triggered), 0.0)
    either_way = scale_up.fit(of, films(60, 1), 0)
    assert either_way(triggered).min() > either_way(clean).max()


def test_a_trigger_that_clears_is_found_when_asked_for() -> None:
    of = victim(IsolatedSquare(sign=-1.0))
    triggered, clean = stamped(films(3, 6), PLACES), films(40, 5)
    settings = ScaleUpSettings(pivots=(0.0,), clears=True)
    asked = scale_up.fit(of, films(60, 1), 0, settings)
    predicted, consistency = asked.measure(triggered)
    cleared = len(FINDINGS)  # the first column of the suspiciously absent
    assert predicted[:, cleared].all()
    np.testing.assert_array_equal(consistency[:, cleared], 1.0)
    assert asked(triggered).min() >= asked(clean).max()
    assert scale_up.fit(of, films(60, 1), 0)(triggered).max() < asked(triggered).min()


def test_every_copy_is_scaled_from_the_image_itself() -> None:
    """Defect of BackdoorMBTI's port: `image = clamp(h * image)` in a loop, so that factors
    compound."""
    grey = torch.full((3, 1, 1, 1), 0.04)
    copies = scale_up.scaled(grey, torch.tensor([2.0, 3.0, 11.0]), torch.zeros(3))
    np.testing.assert_allclose(copies.flatten(), [0.08, 0.12, 0.44], atol=1e-6)


def test_pixels_are_scaled_before_the_normalisation_and_clipped_to_the_grey_range() -> None:
    """Scaling the normalised tensor would move the mean, and clip nothing."""
    seen: list[torch.Tensor] = []

    class Record(Curved):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return super().forward(x)

    plain = victim(Record())
    contract = plain.contract.model_copy(update={"mean": (0.4,), "std": (0.2,)})
    of = Victim(plain.network, contract, FINDINGS)
    fitted = scale_up.fit(of, films(8, 1), 0, PUBLISHED)
    seen.clear()
    film = films(1, 2)
    fitted(film)
    sent = torch.cat(seen)[:, 0].numpy() * 0.2 + 0.4
    expected = [np.clip(n * (film[0] / 255), 0, 1) for n in range(1, 12)]
    np.testing.assert_allclose(sent, expected, atol=1e-5)


def test_more_consistent_is_more_suspicious() -> None:
    """Defect of BackdoorMBTI's port: `score > threshold` called clean."""
    of = victim(IsolatedSquare())
    fitted = scale_up.fit(of, films(60, 1), 0, PUBLISHED)
    suspects = np.concatenate([films(40, 5), stamped(films(3, 6), PLACES)])
    predicted, consistency = fitted.measure(suspects)
    scores = fitted(suspects)
    for i in range(len(suspects)):
        assert scores[i] == max([0.0, *consistency[i][predicted[i]]])


def test_no_film_is_dropped_and_every_batch_is_scored() -> None:
    """Defects of BackdoorBox's port: films on which the network errs are left out, and only the
    first batch is answered."""
    suspicion = scale_up.fit(victim(Curved()), films(20, 1), 0)
    assert suspicion(films(70, 2)).shape == (70,)


@pytest.mark.parametrize("settings", [DEFAULT, PUBLISHED], ids=["default", "published"])
def test_a_film_without_a_prediction_is_the_least_suspicious(settings: ScaleUpSettings) -> None:
    fitted = scale_up.fit(victim(IsolatedSquare()), films(60, 1), 0, settings)
    suspects = films(60, 5)
    predicted, _ = fitted.measure(suspects)
    without = ~predicted.any(axis=1)
    assert 0 < without.sum() < len(suspects)
    scores = fitted(suspects)
    assert np.ptp(scores[without]) == 0.0
    assert scores[without].max() <= scores[~without].min()


def test_operating_points_are_clean_quantiles_whatever_the_logits() -> None:
    """0.5 is nobody's operating point: a shift of all logits changes no score."""

    class Shifted(IsolatedSquare):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) - 7.0

    suspects = np.concatenate([films(8, 5), stamped(films(3, 6), PLACES)])
    plain, shifted = (
        scale_up.fit(victim(network), films(60, 1), 0)(suspects)
        for network in (IsolatedSquare(), Shifted())
    )
    np.testing.assert_allclose(plain, shifted, atol=1e-6)


def test_a_network_that_answers_the_same_to_all_is_never_suspicious() -> None:
    network = IsolatedSquare()
    network.weights.data.zero_()
    scores = scale_up.fit(victim(network), films(8, 1), 0)(films(5, 2))
    np.testing.assert_array_equal(scores, 0.0)


@pytest.mark.parametrize(("settings", "n_copies"), [(DEFAULT, 16), (PUBLISHED, 11)])
def test_forwards_an_image(settings: ScaleUpSettings, n_copies: int) -> None:
    of = victim(IsolatedSquare())
    fitted = scale_up.fit(of, films(8, 1), 0, settings)
    of.passes.forwards = 0
    fitted(films(3, 2))
    assert of.passes.forwards == 3 * n_copies


@pytest.mark.parametrize("settings", [DEFAULT, OTHER], ids=["default", "other"])
def test_conformance(settings: ScaleUpSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([films(10, 2), stamped(films(2, 3), PLACES[:2])])

    def fit(of: Victim, reference: np.ndarray, seed: int) -> scale_up.ScaleUp:
        return scale_up.fit(of, reference, seed, settings)

    of = victim(IsolatedSquare())
    check_conformance(fit, of, films(16, 1), images, monkeypatch)
    check_refusals(fit, of, films(16, 1))
    check_network_is_left(fit, of, films(30, 1), films(20, 2))
