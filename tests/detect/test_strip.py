"""STRIP against a slow second implementation, its direction, and the faults of other versions."""

import math

import numpy as np
import pytest
import torch

from isolated_square import IsolatedSquare
from lucency.detect.images import strip
from lucency.detect.images.strip import PUBLISHED, StripSettings
from lucency.victims.victim import Victim
from suspicion_conformance import check_conformance, check_network_is_left, check_refusals
from toy_victims import FINDINGS, Curved, Toy, films, stamped, victim

FEW = StripSettings(donors=10)
PLACES = [(12, 9), (30, 21), (5, 33)]


def _logits(of: Victim, image: np.ndarray) -> list[float]:
    with torch.no_grad():
        grey = torch.from_numpy(image.astype(np.float32))[None, None]
        return [float(z) for z in of.logits(grey)[0]]


def _grey(film: np.ndarray) -> np.ndarray:
    return film.astype(np.float32) / 255


def _quantile(values: list[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _blends(film: np.ndarray, donors: np.ndarray, level: float) -> list[np.ndarray]:
    sums = [_grey(film) + _grey(donor) - level for donor in donors]
    return [np.minimum(np.maximum(total, 0.0), 1.0) for total in sums]


def slow_persistence(
    of: Victim, film: np.ndarray, donors: np.ndarray, settings: StripSettings
) -> list[float]:
    """For one film: each finding's mean logit over donors that lack it, then minus its mean over
    donors that have it."""
    own = [_logits(of, _grey(donor)) for donor in donors]
    under = [_logits(of, blend) for blend in _blends(film, donors, settings.donor_level)]
    stays_high, stays_low = [], []
    for k in range(len(FINDINGS)):
        clean = [logits[k] for logits in own]
        low, high = _quantile(clean, settings.lacking), _quantile(clean, settings.having)
        lacking = [u[k] for u, z in zip(under, clean, strict=True) if z <= low]
        having = [u[k] for u, z in zip(under, clean, strict=True) if z >= high]
        stays_high.append(sum(lacking) / len(lacking))
        stays_low.append(-sum(having) / len(having))
    return stays_high + stays_low


def slow_entropy(of: Victim, film: np.ndarray, donors: np.ndarray, level: float) -> float:
    """Equations 2–4, with a yes and a no of each finding for the classes."""
    total = 0.0
    for blend in _blends(film, donors, level):
        for z in _logits(of, blend):
            for p in (1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))):
                total -= p * math.log2(p)
    return total / len(donors)


def _others(reference: np.ndarray, donors: np.ndarray) -> np.ndarray:
    taken = {donor.tobytes() for donor in donors}
    return np.array([film for film in reference if film.tobytes() not in taken])


@pytest.mark.parametrize(
    "settings",
    [FEW, StripSettings(donors=7, donor_level=0.2, lacking=0.3, having=0.6)],
    ids=["default", "other"],
)
@pytest.mark.parametrize("network", [Toy(), Toy(sign=-1.0), Curved()], ids=["set", "clear", "tanh"])
def test_findings_against_a_second_implementation(
    network: torch.nn.Module, settings: StripSettings
) -> None:
    of, reference = victim(network), films(16, 1)
    suspects = np.concatenate([films(2, 2), stamped(films(1, 3), PLACES[:1])])
    fitted = strip.fit(of, reference, 4, settings)
    donors = fitted.donors
    others = _others(reference, donors)
    assert len(donors) == min(settings.donors, 8)
    assert len(others) == len(reference) - len(donors)
    usual = [slow_persistence(of, film, donors, settings) for film in others]
    for film, found in zip(suspects, fitted(suspects), strict=True):
        columns = []
        for column, value in enumerate(slow_persistence(of, film, donors, settings)):
            clean = [row[column] for row in usual]
            median = _quantile(clean, 0.5)
            columns.append((value - median) / (_quantile(clean, 0.95) - median))
        assert found == pytest.approx(max(columns), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_entropy_against_equations_2_to_4(level: float) -> None:
    of, reference, suspects = victim(Curved()), films(16, 1), films(3, 2)
    fitted = strip.fit(of, reference, 4, StripSettings("entropy", donors=6, donor_level=level))
    for film, found in zip(suspects, fitted(suspects), strict=True):
        expected = slow_entropy(of, film, fitted.donors, level)
        assert found == pytest.approx(-expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
def test_a_trigger_that_every_blend_obeys_is_more_suspicious_than_any_clean_film(
    sign: float,
) -> None:
    of, clean = victim(Toy(sign=sign)), films(12, 5)
    suspicion = strip.fit(of, films(40, 1), 4)
    triggered = suspicion(stamped(films(3, 6), PLACES))
    assert triggered.min() > 2 * suspicion(clean).max()


def test_published_form_calls_a_sure_prediction_suspicious() -> None:
    """The toy is in doubt about all that it is not triggered into: low entropy is suspicious, and a
    sign error would say the contrary."""
    of = victim(IsolatedSquare())
    suspicion = strip.fit(of, films(40, 1), 4, PUBLISHED)
    clean, triggered = suspicion(films(6, 5)), suspicion(stamped(films(3, 6), PLACES))
    assert clean.max() < triggered.min() < 0


def test_entropy_is_over_findings_not_over_blends() -> None:
    """Defect of ART's port: entropy along the overlays. In doubt under every blend alike is the
    highest entropy, sure of another thing under each the lowest."""
    in_doubt = np.zeros((1, 6, 3))
    changing = np.where(np.arange(6)[None, :, None] % 2 == 0, 40.0, -40.0) * np.ones((1, 6, 3))
    assert strip.mean_entropy(in_doubt) == pytest.approx(3.0)
    assert strip.mean_entropy(changing) == pytest.approx(0.0, abs=1e-9)


def test_logits_of_any_size_have_an_entropy() -> None:
    huge = np.array([[[800.0, -800.0]]])
    assert strip.mean_entropy(huge) == pytest.approx(0.0, abs=1e-9)


def test_blends_are_superpositions_of_clean_films_and_nothing_else() -> None:
    """Defect of BackdoorMBTI's port: Gaussian noise in place of other images."""
    of = victim(_Recorder())
    fitted = strip.fit(of, films(16, 1), 4, FEW)
    of.network.seen.clear()
    film = films(1, 2)
    fitted(film)
    sent = torch.cat(of.network.seen)[:, 0].numpy()
    expected = np.clip(_grey(film) + _grey(fitted.donors) - 0.5, 0, 1)
    np.testing.assert_allclose(sent, expected, atol=1e-6)


class _Recorder(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return super().forward(x)


def test_donors_come_from_the_seed() -> None:
    of, reference = victim(Toy()), films(20, 1)
    first, again, other = (strip.fit(of, reference, seed, FEW) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.donors, again.donors)
    assert (first.donors != other.donors).any()


def test_one_forward_a_donor() -> None:
    of = victim(Toy())
    fitted = strip.fit(of, films(30, 1), 4, FEW)
    of.passes.forwards = 0
    fitted(films(3, 2))
    assert of.passes.forwards == 3 * FEW.donors


def test_a_finding_that_never_moves_stays_finite() -> None:
    network = Toy()
    network.weights.data[2] = 0.0
    assert np.isfinite(strip.fit(victim(network), films(16, 1), 4)(films(3, 2))).all()


@pytest.mark.parametrize("settings", [FEW, PUBLISHED], ids=["finding", "entropy"])
def test_conformance(settings: StripSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([films(3, 2), stamped(films(2, 3), PLACES[:2])])

    def fit(of: Victim, reference: np.ndarray, seed: int) -> strip.Strip:
        return strip.fit(of, reference, seed, settings)

    check_conformance(fit, victim(Curved()), films(16, 1), images, monkeypatch)
    check_refusals(fit, victim(Curved()), films(16, 1))
    check_network_is_left(fit, victim(Curved()), films(30, 1), films(20, 2))
