"""Spectra and their distance against slow second implementations, and on triggers over the film."""

import cmath
import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from lucency.attacks.blended import BlendedTrigger
from lucency.attacks.sinusoid import SinusoidTrigger
from lucency.attacks.warp import WarpTrigger
from lucency.detect.images import frequency, frequency_trained, spectrum
from lucency.detect.images.frequency import DEFAULT, PUBLISHED, FrequencySettings
from lucency.detect.images.spectrum import bands, block_energy, grating_frequencies, gratings
from lucency.errors import DataError
from lucency.records import Box
from suspicion_conformance import check_conformance
from toy_victims import Toy, films, stamped, victim

SIDE = 48
EVERYWHERE = Box(x=0, y=0, width=SIDE, height=SIDE)


def _chests(n: int, seed: int, side: int = SIDE) -> np.ndarray:
    """(n, side, side) uint8: texture at all scales, coarse strongest, and a detector's noise."""
    generator = np.random.default_rng(seed)
    total = np.full((n, side, side), 128.0)
    for sd in (1, 2, 4, 8):
        strength = 8 * sd**0.7 * generator.uniform(0.7, 1.4, (n, 1, 1))
        field = gaussian_filter(generator.normal(size=total.shape), (0, sd, sd), mode="nearest")
        total += strength * field / field.std(axis=(1, 2), keepdims=True)
    total += generator.uniform(1, 2, (n, 1, 1)) * generator.normal(size=total.shape)
    return np.round(total.clip(0, 255)).astype(np.uint8)


# --- the descriptions, a coefficient at a time --------------------------------------------------


def _slow_block_energy(block: np.ndarray) -> np.ndarray:
    """Squared orthonormal DCT-II of (8, 8), by its definition."""
    energy = np.zeros((8, 8))
    for v in range(8):
        for u in range(8):
            total = 0.0
            for y in range(8):
                for x in range(8):
                    wave = math.cos(math.pi * v * (y + 0.5) / 8) * math.cos(
                        math.pi * u * (x + 0.5) / 8
                    )
                    total += block[y, x] * wave
            scale = (math.sqrt(1 / 8) if v == 0 else 0.5) * (math.sqrt(1 / 8) if u == 0 else 0.5)
            energy[v, u] = (scale * total) ** 2
    return energy


def test_block_energies_against_the_definition() -> None:
    grey = (films(1, 3)[0, :17, :26] / 255).astype(np.float32)
    found = block_energy(grey[None])
    assert found.shape == (1, 6, 8, 8)
    for i, (y, x) in enumerate([(0, 0), (0, 8), (0, 16), (8, 0), (8, 8), (8, 16)]):
        np.testing.assert_allclose(
            found[0, i], _slow_block_energy(grey[y : y + 8, x : x + 8]), rtol=1e-3, atol=1e-6
        )


def _slow_bands(film: np.ndarray) -> list[float]:
    grey, rounding = film / 255, 1 / 12 / 255**2
    blocks = [
        _slow_block_energy(grey[y : y + 8, x : x + 8])
        for y in range(0, len(grey) - 7, 8)
        for x in range(0, len(grey) - 7, 8)
    ]
    levels: list[list[float]] = []
    for frequency_ in range(1, 8):
        for direction in ("down", "across", "diagonal"):
            members = []
            for v in range(8):
                for u in range(8):
                    way = "down" if v > 2 * u else "across" if u > 2 * v else "diagonal"
                    if max(u, v) == frequency_ and way == direction:
                        members.append((v, u))
            levels.append(
                [math.log(sum(b[m] for m in members) / len(members) + rounding) for b in blocks]
            )
    ratios: list[list[float]] = []
    for rows, columns in (((0, 3), (5, 8)), ((5, 8), (0, 3)), ((5, 8), (5, 8))):
        middling = [(2, 4) if span == (5, 8) else span for span in (rows, columns)]
        fine = [math.log(b[slice(*rows), slice(*columns)].mean() + rounding) for b in blocks]
        other = [
            math.log(b[slice(*middling[0]), slice(*middling[1])].mean() + rounding) for b in blocks
        ]
        ratios.append([f - o for f, o in zip(fine, other, strict=True)])
    ratios.append([a - b for a, b in zip(ratios[0], ratios[1], strict=True)])
    described = [float(np.quantile(level, q)) for q in (0.1, 0.5, 0.9) for level in levels]
    return described + [float(np.quantile(r, q)) for q in (0.1, 0.3, 0.5, 0.7, 0.9) for r in ratios]


def test_bands_against_loops() -> None:
    images = _chests(2, 5, side=20)
    found = bands(images)
    assert found.shape == (2, 83)
    for i in range(2):
        np.testing.assert_allclose(found[i], _slow_bands(images[i]), atol=2e-2)


def _slow_grating(film: np.ndarray, down: int, right: int) -> float:
    """The local amplitude at 9 × 9 places, each as a sum over the neighbouring frequencies."""
    grey = film / 255 - film.mean() / 255
    rows, columns = np.arange(len(grey)), np.arange(grey.shape[1])
    around = {}
    for dv in range(-4, 5):
        for du in range(-4, 5):
            wave = np.outer(
                np.exp(-2j * np.pi * (down + dv) * rows / len(grey)),
                np.exp(-2j * np.pi * (right + du) * columns / grey.shape[1]),
            )
            around[dv, du] = (grey * wave).mean() * math.exp(-(dv**2 + du**2) / (2 * 2**2))
    real, imaginary = [], []
    for y in range(9):
        for x in range(9):
            local = sum(
                a * cmath.exp(2j * math.pi * (dv * y + du * x) / 9)
                for (dv, du), a in around.items()
            )
            real.append(local.real)
            imaginary.append(local.imag)
    return math.hypot(float(np.median(real)), float(np.median(imaginary)))


def test_gratings_against_the_definition() -> None:
    film = _chests(1, 6)
    found, frequencies = gratings(film)[0], grating_frequencies()
    for row in (0, 77, 300, len(frequencies) - 1):
        down, right = frequencies[row]
        assert found[row] == pytest.approx(_slow_grating(film[0], int(down), int(right)), rel=1e-3)


def test_every_grating_is_sought_once() -> None:
    found = {tuple(pair) for pair in grating_frequencies().tolist()}
    expected = {
        (v, u)
        for v in range(-16, 17)
        for u in range(17)
        if math.hypot(v, u) > 4 and not (u == 0 and v <= 0)
    }
    assert found == expected


@pytest.mark.parametrize(("down", "right"), [(0, 6), (7, 0), (-5, 8), (16, 16)])
def test_a_grating_is_read_at_half_its_amplitude(down: int, right: int) -> None:
    y, x = np.indices((96, 96))
    wave = np.sin(2 * np.pi * (down * y + right * x) / 96 + 0.7)
    film = np.round(30000 + 0.08 * 65535 * wave).astype(np.uint16)[None]
    found, frequencies = gratings(film)[0], grating_frequencies()
    best = found.argmax()
    assert tuple(frequencies[best]) in {(down, right), (-down, -right)}
    assert found[best] == pytest.approx(0.04, rel=0.01)


def test_an_edge_is_no_grating() -> None:
    """A bright bar has as much energy at the trigger's frequency, but in one place only."""
    x = np.arange(96)
    bar = np.where(abs(x - 30) < 4, 230, 50)
    stripes = 130 + 20 * np.sin(2 * np.pi * 6 * x / 96)
    row = [tuple(pair) for pair in grating_frequencies().tolist()].index((0, 6))
    energy, found = [], []
    for profile in (bar, stripes):
        film = np.broadcast_to(np.round(profile), (96, 96)).astype(np.uint8)[None]
        energy.append(abs(np.fft.fft(profile)[6]) / 96)
        found.append(gratings(film)[0, row])
    assert energy[0] > 0.8 * energy[1]
    assert found[0] < 0.1 * found[1]


# --- the detector -------------------------------------------------------------------------------

TRIGGERS = {
    "sinusoid": SinusoidTrigger(delta=20 / 255, frequency=6),
    "sinusoid, faster": SinusoidTrigger(delta=8 / 255, frequency=15),
    "blended, 0.2": BlendedTrigger(alpha=0.2),
    "warp": WarpTrigger(strength=0.05),
}


def _triggered(images: np.ndarray, name: str) -> np.ndarray:
    return np.stack([TRIGGERS[name].apply(image, EVERYWHERE) for image in images])


def _noisy(images: np.ndarray, alpha: float) -> np.ndarray:
    pattern = np.random.default_rng(9).uniform(0, 255, images.shape[1:])
    return np.round((1 - alpha) * images + alpha * pattern).astype(np.uint8)


def _auroc(clean: np.ndarray, triggered: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(clean), len(triggered)])
    return float(roc_auc_score(labels, np.concatenate([clean, triggered])))


@pytest.fixture(scope="module")
def suspicion() -> frequency.Frequency:
    found = frequency.fit(victim(Toy()), _chests(80, 1), 0)
    assert isinstance(found, frequency.Frequency)
    return found


@pytest.mark.parametrize("name", list(TRIGGERS))
def test_a_trigger_over_the_film_stands_out(suspicion: frequency.Frequency, name: str) -> None:
    clean = _chests(40, 2)
    bound = 0.85 if name == "warp" else 0.97
    assert _auroc(suspicion(clean), suspicion(_triggered(clean, name))) > bound


@pytest.mark.parametrize("alpha", [0.1, 0.05])
def test_blended_noise_stands_out(suspicion: frequency.Frequency, alpha: float) -> None:
    clean = _chests(40, 2)
    assert _auroc(suspicion(clean), suspicion(_noisy(clean, alpha))) > 0.97


def test_clean_films_do_not_stand_out(suspicion: frequency.Frequency) -> None:
    assert 0.3 < _auroc(suspicion(_chests(40, 2)), suspicion(_chests(40, 3))) < 0.7


def test_the_distance_against_a_second_implementation() -> None:
    """The description row by row, then the textbook's Mahalanobis distance with scikit-learn's own
    estimate of the shrunk covariance."""
    from sklearn.covariance import ledoit_wolf

    reference, suspects = _chests(30, 1), _chests(6, 2)
    strength = gratings(reference)
    unit = np.array([np.quantile(column, 0.95) for column in strength.T])
    unit = np.maximum(unit, 0.3 * np.median(unit))

    def row(film: np.ndarray) -> np.ndarray:
        strongest = max(g / u for g, u in zip(gratings(film[None])[0], unit, strict=True))
        return np.append(bands(film[None])[0], math.log(strongest))

    rows = np.array([row(film) for film in reference])
    centre = np.median(rows, axis=0)
    spread = np.array([np.quantile(column, 0.68) for column in abs(rows - centre).T])
    spread = np.maximum(spread, 0.3 * np.median(spread))
    scaled = (rows - centre) / spread
    _, share = ledoit_wolf(scaled)
    sample = np.cov(scaled.T, bias=True)
    share = max(share, 0.2)
    covariance = (1 - share) * sample + share * np.trace(sample) / 84 * np.eye(84)
    found = frequency.fit(victim(Toy()), reference, 0)(suspects)
    for i, film in enumerate(suspects):
        away = (row(film) - centre) / spread - scaled.mean(axis=0)
        assert found[i] == pytest.approx(
            math.sqrt(away @ np.linalg.solve(covariance, away)), rel=1e-5
        )


@pytest.mark.parametrize("settings", [DEFAULT, PUBLISHED], ids=["anomaly", "published"])
def test_conformance(settings: FrequencySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(of, reference, seed):
        return frequency.fit(of, reference, seed, settings)

    suspects = np.concatenate([films(5, 0x51), stamped(films(1, 0x52), [(12, 9)])])
    of = victim(Toy())
    check_conformance(fit, of, films(20, 0xC1), suspects, monkeypatch)
    assert of.passes.forwards == 0
    monkeypatch.setattr(spectrum, "CHUNK", 2)
    np.testing.assert_allclose(
        fit(of, films(20, 0xC1), 0)(suspects), fit(of, films(20, 0xC1), 0)(suspects[::-1])[::-1]
    )
    for n in (0, 1):
        with pytest.raises(DataError, match=f"At least 2 .* got {n}"):
            fit(of, films(20, 0xC1)[:n], 0)
    assert np.isfinite(fit(of, films(20, 0xC1)[:2], 0)(suspects)).all()


def test_copies_of_one_film_are_survived() -> None:
    same = np.repeat(films(1, 1), 10, axis=0)
    scores = frequency.fit(victim(Toy()), same, 0)(np.concatenate([same[:1], films(1, 2)]))
    assert np.isfinite(scores).all()
    assert scores[0] < 1e-3 * scores[1]


# --- the published form -------------------------------------------------------------------------


def test_log_spectrum_against_the_definition() -> None:
    grey = np.random.default_rng(4).random((1, 6, 6)).astype(np.float32)
    found = frequency_trained.log_spectrum(grey)[0]
    basis = np.array(
        [
            [
                math.sqrt((1 if k == 0 else 2) / 6) * math.cos(math.pi * k * (i + 0.5) / 6)
                for i in range(6)
            ]
            for k in range(6)
        ]
    )
    np.testing.assert_allclose(
        found, np.log(abs(basis @ grey[0] @ basis.T) + 1e-4).ravel(), atol=1e-3
    )


def test_log_spectrum_in_cells_is_a_mean() -> None:
    grey = np.random.default_rng(4).random((2, 40, 40)).astype(np.float32)
    fine = np.log(abs(frequency_trained.dctn(grey, axes=(1, 2), norm="ortho")) + 1e-4)
    edges = [i * 40 // 32 for i in range(33)]
    found = frequency_trained.log_spectrum(grey).reshape(2, 32, 32)
    for i in (0, 3, 31):
        for j in (0, 4, 30):
            cell = fine[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            np.testing.assert_allclose(found[:, i, j], cell.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", list(frequency_trained.SYNTHETIC))
def test_a_synthetic_trigger(name: str) -> None:
    film, other = (films(2, 0x51) / 255).astype(np.float32)
    before = film.copy()
    draw = frequency_trained.SYNTHETIC[name]
    stamped_ = draw(film, other, np.random.default_rng(1))
    np.testing.assert_array_equal(film, before)
    assert stamped_.shape == film.shape
    assert stamped_.dtype == np.float32
    assert stamped_.min() >= 0
    assert stamped_.max() <= 1
    assert (stamped_ != film).any()
    np.testing.assert_array_equal(stamped_, draw(film, other, np.random.default_rng(1)))


def test_the_published_form_finds_what_it_was_trained_on() -> None:
    found = frequency.fit(victim(Toy()), _chests(60, 1), 0, PUBLISHED)
    clean = _chests(40, 2)
    assert _auroc(found(clean), found(_noisy(clean, 0.1))) > 0.95
    assert _auroc(found(clean), found(stamped(clean, [(9, 30)] * 40, side=6))) > 0.8
    other = frequency.fit(victim(Toy()), _chests(60, 1), 1, PUBLISHED)
    assert not np.array_equal(other(clean), found(clean))


# --- real films ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_films(cxr_data: Path) -> np.ndarray:
    """(110, 96, 96), a film a patient."""
    folder = cxr_data / "nih-cxr14-256"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = {row["patient_id"]: row["image"] for row in reversed(rows)}
    images = []
    for name in sorted(first.values())[:110]:
        film = Image.open(folder / name).convert("L").resize((96, 96), Image.Resampling.BOX)
        images.append(np.asarray(film))
    return np.array(images)


@pytest.mark.parametrize("name", ["sinusoid", "blended, 0.2"])
def test_real_films(real_films: np.ndarray, name: str) -> None:
    clean = real_films[70:]
    found = frequency.fit(victim(Toy()), real_films[:70], 0)
    assert _auroc(found(clean), found(_triggered(clean, name))) > 0.95
