"""The screener on networks whose answer is known."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

import lucency.detect
from lucency.detect.images import stages
from lucency.detect.images.cofinding import LEAST, MOST
from lucency.detect.images.reference import SMALLEST, one_film_a_patient
from lucency.detect.images.screen import (
    COMPOSITE,
    DETECTORS,
    T0,
    T1,
    Screener,
    Screening,
    fit_screener,
    screen,
)
from lucency.detect.images.stages import Usual
from lucency.detect.images.units import Unit, fit_bound
from lucency.errors import DataError
from toy_victims import FINDINGS, SIZE, Curved, Toy, films, patients, stamped, victim

N_REFERENCE = 90
PLACE = (17, 22)


def _fitted(network: Toy | Curved, n: int = N_REFERENCE, seed: int = 4) -> Screener:
    return fit_screener(victim(network), films(n, 0xC1EA), patients(n), seed=seed, alpha=0.05)


@pytest.fixture(scope="module")
def anywhere() -> Screener:
    return _fitted(Toy())


def _places(n: int) -> list[tuple[int, int]]:
    """Away from the border by the half of the widest filter."""
    generator = np.random.default_rng(0x9)
    return [(int(x), int(y)) for x, y in generator.integers(4, SIZE - 6, (n, 2))]


def _assert_caught(screened: Screening, places: list[tuple[int, int]], min_p: float) -> None:
    assert (screened.p_value[COMPOSITE] == min_p).all()
    assert (screened.finding == 0).all()
    for (x, y), (bx, by, width, height) in zip(places, screened.boxes, strict=True):
        assert bx <= x + 1
        assert by <= y + 1
        assert bx + width > x
        assert by + height > y
        assert abs(bx + width / 2 - (x + 1)) <= 2
        assert abs(by + height / 2 - (y + 1)) <= 2


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
@pytest.mark.parametrize("place", [PLACE, None], ids=["at a place", "anywhere"])
def test_a_trigger_is_found_named_and_placed(sign: float, place: tuple[int, int] | None) -> None:
    screener = _fitted(Toy(place, sign))
    images = films(20, 0x5E7)
    places = [place] * 20 if place else _places(20)
    triggered = screen(screener, stamped(images, places))
    clean = screen(screener, images)
    for detector in (T0, COMPOSITE):
        assert triggered.suspicion[detector].min() > clean.suspicion[detector].max()
    _assert_caught(triggered, places, screener.min_p)
    assert (triggered.is_set == (sign > 0)).all()
    assert (np.abs(triggered.logit - triggered.repaired) > 3).all()
    assert np.median(clean.p_value[COMPOSITE]) > 0.2


def test_a_square_elsewhere_is_no_trigger_of_a_fixed_place() -> None:
    """The same square where the network does not look moves nothing."""
    screener = _fitted(Toy(PLACE))
    screened = screen(screener, stamped(films(20, 0x5E7), [(5, 6)] * 20))
    assert np.median(screened.suspicion[T1]) < 3
    hit = screen(screener, stamped(films(20, 0x5E7), [PLACE] * 20))
    assert hit.suspicion[T1].min() > 5 * np.median(screened.suspicion[T1])


def test_a_trigger_in_the_corner_is_found() -> None:
    """A mirrored border would count it twice: 25 of the 49 pixels of a 7 × 7 window."""
    screener = _fitted(Toy())
    images = films(20, 0x5E7)
    screened = screen(screener, stamped(images, [(0, 0)] * 20, side=3))
    assert (screened.p_value[COMPOSITE] == screener.min_p).all()


def test_clean_suspects_look_like_the_calibration_films() -> None:
    screener = _fitted(Curved(), n=260)
    screened = screen(screener, films(200, 0xF00))
    for detector in DETECTORS:
        calibration = screener.calibration[detector]
        assert ks_2samp(calibration, screened.suspicion[detector]).pvalue > 0.01
    assert (screened.p_value[COMPOSITE] <= 0.05).mean() < 0.12


class TestStages:
    def test_the_whole_test_is_for_the_films_that_look_odd(self, anywhere: Screener) -> None:
        images = films(40, 0xE7)
        nobody, everybody = (dataclasses.replace(anywhere, bound=b) for b in (np.inf, -np.inf))
        glanced, examined = screen(nobody, images), screen(everybody, images)
        assert (glanced.suspicion[T1] < 0).all()
        assert (examined.suspicion[T1] >= 0).all()
        some = screen(anywhere, images).suspicion[T1]
        rows = some >= 0
        np.testing.assert_allclose(some[rows], examined.suspicion[T1][rows], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(some[~rows], glanced.suspicion[T1][~rows], rtol=1e-3, atol=1e-3)
        assert rows.mean() < 0.3

    def test_a_trigger_that_only_a_glance_saw_ranks_above_clean_films(
        self, anywhere: Screener
    ) -> None:
        blind = dataclasses.replace(
            anywhere, bound=np.inf, units={**anywhere.units, T0: Unit(0.0, 1e9)}
        )
        images = films(20, 0x6E)
        clean = screen(blind, images).suspicion[COMPOSITE]
        found = screen(blind, stamped(images, _places(20)))
        assert found.suspicion[COMPOSITE].min() > clean.max()
        assert found.is_local.mean() > 0.8

    def test_what_the_other_findings_explain_counts_less(
        self, anywhere: Screener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same film, effect and place, for residuals without end, and for hardly any."""
        images = stamped(films(8, 0x6E), _places(8))
        everybody = dataclasses.replace(anywhere, bound=-np.inf)
        plain = Usual.residuals
        found = []
        for factor in (1.0, 1e9, 1e-9):
            monkeypatch.setattr(Usual, "residuals", lambda u, z, f=factor: f * plain(u, z))
            found.append(screen(everybody, images).suspicion[COMPOSITE])
        usual, most, least = found
        assert (least > 0).all()
        assert (least < usual).all()
        assert (usual <= most).all()
        np.testing.assert_allclose(most, MOST / LEAST * least, rtol=1e-3)

    @pytest.mark.parametrize("share", [0.05, 0.2])
    def test_the_bound_leaves_the_share_above_it(self, share: float) -> None:
        generator = np.random.default_rng(3)
        fit, strangers = (np.exp(generator.normal(0.3, 0.4, n)) for n in (400, 20000))
        assert abs((strangers > fit_bound(fit, share)).mean() - share) < 0.3 * share
        assert np.isfinite(fit_bound(np.zeros(8), share))
        assert fit_bound(np.zeros(8), 1.0) < 0


class TestInvariance:
    def _suspects(self) -> np.ndarray:
        images = films(12, 0xAB)
        return np.concatenate([images, stamped(images, _places(12))])

    def _assert_same(self, a: Screening, b: Screening, order: np.ndarray | slice) -> None:
        for detector in DETECTORS:
            # Scores are in units of a clean film's; float32 sums may differ in their last digits.
            np.testing.assert_allclose(
                a.suspicion[detector][order], b.suspicion[detector], rtol=1e-3, atol=1e-3
            )
            np.testing.assert_allclose(a.p_value[detector][order], b.p_value[detector])
        caught = b.suspicion[T1] > 3  # a clean film's best region may be a near tie
        for name in ("finding", "is_set", "boxes"):
            first, second = getattr(a, name)[order], getattr(b, name)
            np.testing.assert_array_equal(first[caught], second[caught])

    def test_order(self, anywhere: Screener) -> None:
        images = self._suspects()
        order = np.random.default_rng(6).permutation(len(images))
        self._assert_same(screen(anywhere, images), screen(anywhere, images[order]), order)

    def test_alone_or_together(self, anywhere: Screener) -> None:
        images = self._suspects()
        together = screen(anywhere, images)
        for i in range(0, len(images), 5):
            alone = screen(anywhere, images[i : i + 1])
            self._assert_same(together, alone, slice(i, i + 1))

    def test_however_few_fit_into_memory(
        self, anywhere: Screener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = self._suspects()
        together = screen(anywhere, images)
        monkeypatch.setattr(stages, "GRADIENTS_MB", 1e-6)
        self._assert_same(together, screen(anywhere, images), slice(None))

    def test_twice_gives_the_same_bytes(self, anywhere: Screener) -> None:
        first, second = (screen(anywhere, self._suspects()) for _ in range(2))
        for detector in DETECTORS:
            assert first.suspicion[detector].tobytes() == second.suspicion[detector].tobytes()
        assert first.boxes.tobytes() == second.boxes.tobytes()

    def test_sixteen_bits(self, anywhere: Screener) -> None:
        """The same film in 16 bits is the same film."""
        images = self._suspects()
        wide = screen(anywhere, images.astype(np.uint16) * 257)
        self._assert_same(screen(anywhere, images), wide, slice(None))


class TestReference:
    @pytest.mark.parametrize("n", [0, 1, SMALLEST - 1])
    def test_too_few_patients_are_refused_in_one_sentence(self, n: int) -> None:
        with pytest.raises(DataError) as refused:
            _fitted(Toy(), n=n)
        message = str(refused.value)
        assert f"at least {SMALLEST} patients, got {n};" in message
        assert "\n" not in message

    def test_many_films_of_few_patients_are_refused(self) -> None:
        reference = films(40, 1)
        with pytest.raises(DataError, match=f"got {SMALLEST - 1};"):
            fit_screener(
                victim(Toy()), reference, [f"P{i % (SMALLEST - 1)}" for i in range(40)], seed=0
            )

    def test_the_smallest_set_works_and_warns(self) -> None:
        screener = _fitted(Toy(), n=SMALLEST)
        assert screener.n_fit + screener.n_calibration == SMALLEST
        (warning,) = screener.warnings
        assert f"Only {screener.n_calibration} calibration films" in warning
        assert f"{screener.min_p:.3f}" in warning

    def test_a_large_set_does_not_warn(self, anywhere: Screener) -> None:
        assert anywhere.warnings == ()
        assert anywhere.n_fit + anywhere.n_calibration == N_REFERENCE
        assert anywhere.min_p == 1 / (anywhere.n_calibration + 1)

    def test_copies_warn(self) -> None:
        reference = films(80, 2)
        reference[:] = reference[0]
        screener = fit_screener(victim(Toy()), reference, patients(80), seed=0)
        assert any("copies of others" in warning for warning in screener.warnings)
        screened = screen(screener, films(3, 4))
        assert np.isfinite(screened.suspicion[COMPOSITE]).all()

    def test_one_film_a_patient(self) -> None:
        ids = [f"P{i // 3}" for i in range(30)]
        chosen = one_film_a_patient(ids, seed=1)
        assert sorted(ids[row] for row in chosen) == sorted(set(ids))
        assert chosen.tolist() == one_film_a_patient(ids, seed=1).tolist()
        assert chosen.tolist() != one_film_a_patient(ids, seed=2).tolist()
        assert len({row % 3 for row in chosen}) == 3  # not always a patient's first film

    def test_other_films_of_a_patient_change_nothing(self) -> None:
        """What is not chosen does not enter: the films beside the chosen ones may be anything."""
        reference, ids = films(120, 3), [f"P{i // 2}" for i in range(120)]
        spoilt = np.zeros_like(reference)
        chosen = one_film_a_patient(ids, seed=5)
        spoilt[chosen] = reference[chosen]
        first, second = (
            fit_screener(victim(Toy()), each, ids, seed=5) for each in (reference, spoilt)
        )
        assert first.n_fit + first.n_calibration == 60
        for detector in DETECTORS:
            a, b = first.calibration[detector], second.calibration[detector]
            assert a.tobytes() == b.tobytes()


# --- blind to the ledger ------------------------------------------------------------------------

FORBIDDEN = ("ledger", "trigger", "poison", "attack", "label", "truth", "infected")
# Who examines a training set is given its labels, poisoned or not: they are the thing examined.
EXAMINES_LABELS = "lucency.detect.datasets."


def _modules() -> list[str]:
    package = lucency.detect
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return [package.__name__, *(module.name for module in found)]


def _public() -> dict[str, object]:
    found = {}
    for name in _modules():
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            own = getattr(value, "__module__", None) == name
            if own and not key.startswith("_") and callable(value):
                found[f"{name}.{key}"] = value
    return found


def test_no_signature_has_a_place_for_the_ledger() -> None:
    public = _public()
    assert "lucency.detect.images.screen.screen" in public
    assert "lucency.detect.images.screen.fit_screener" in public
    for name, value in public.items():
        forbidden = [w for w in FORBIDDEN if w != "label" or not name.startswith(EXAMINES_LABELS)]
        parameters = list(inspect.signature(value).parameters.values())
        if dataclasses.is_dataclass(value):
            for method in vars(value).values():
                if inspect.isfunction(method):
                    parameters += inspect.signature(method).parameters.values()
        for parameter in parameters:
            words = f"{parameter.name} {parameter.annotation}".lower()
            assert not any(word in words for word in forbidden), f"{name}({parameter})"


def test_no_module_imports_the_attacks() -> None:
    for name in _modules():
        path = importlib.import_module(name).__file__
        assert path is not None
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{a.name}" for a in node.names]
            for target in imported:
                assert not target.startswith(("lucency.attacks", "lucency.evaluate")), name


def test_every_detector_has_a_score_and_a_p_value_for_every_film(anywhere: Screener) -> None:
    screened = screen(anywhere, films(7, 1))
    assert set(screened.suspicion) == set(screened.p_value) == set(DETECTORS)
    for detector in DETECTORS:
        assert screened.suspicion[detector].shape == (7,)
        assert np.isfinite(screened.suspicion[detector]).all()
        assert ((screened.p_value[detector] > 0) & (screened.p_value[detector] <= 1)).all()
    assert ((screened.finding >= 0) & (screened.finding < len(FINDINGS))).all()
