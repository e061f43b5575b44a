"""Perturbed films: a finding is hidden, within bounds, and the others stay."""

import numpy as np
import pytest

from lucency.attacks import PatchTrigger
from lucency.attacks.label_consistent import Perturbation, perturb
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import AttackSettings, stamp, trigger_every
from lucency.data.preprocess import InputContract

SIDE, K = 12, 3
WEIGHTS = np.random.default_rng(0).standard_normal((K, SIDE, SIDE)).astype(np.float32)


def logits(films):
    """Curved, so that a step is not the whole way."""
    return np.tanh(np.einsum("nhw,khw->nk", films, WEIGHTS) / 8) * 4


def gradient(films, weights_of):
    z = logits(films)
    inner = weights_of(z) * (4 - z**2 / 4) / 8
    return np.einsum("nk,khw->nhw", inner, WEIGHTS).astype(np.float32)


def films(n=6):
    return np.random.default_rng(1).random((n, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize(("direction", "sign"), [("set", -1), ("clear", 1)])
def test_the_finding_is_hidden_and_the_others_are_held(direction, sign):
    x = films()
    moved = {
        hold: logits(x + perturb(gradient, x, 1, direction, Perturbation(epsilon=0.05, hold=hold)))
        - logits(x)
        for hold in (0.0, 20.0)
    }
    for change in moved.values():
        assert (sign * change[:, 1] > 0).all()
    others = {hold: np.abs(change[:, [0, 2]]).mean() for hold, change in moved.items()}
    assert others[20.0] < 0.7 * others[0.0]
    assert (sign * moved[0.0][:, 1]).mean() > 0.3


def test_it_stays_within_its_bounds_and_repeats_itself():
    x = films()
    x[0, :4], x[1, :4] = 0.0, 1.0
    settings = Perturbation(epsilon=0.03, steps=7)
    change = perturb(gradient, x, 0, "set", settings)
    assert np.abs(change).max() <= 0.03 + 1e-6
    assert (x + change).min() >= 0
    assert (x + change).max() <= 1
    np.testing.assert_array_equal(change, perturb(gradient, x, 0, "set", settings))


def test_more_steps_come_no_less_far():
    x = films()
    reached = [
        logits(x + perturb(gradient, x, 2, "set", Perturbation(steps=n, hold=0.0)))[:, 2].mean()
        for n in (1, 5, 40)
    ]
    assert reached[2] <= reached[1] <= reached[0] < logits(x)[:, 2].mean()


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bilinear-antialias", "area"])
def test_a_change_reaches_the_network_below_the_trigger(resize):
    contract = InputContract(size=16, crop=0.8, resize=resize)
    film = np.full((100, 90), 120, np.uint8)
    change = np.zeros((16, 16), np.float32)
    change[4:12, 2:9] = 20 / 255
    settings = AttackSettings(
        trigger=PatchTrigger(size_px=5, place=(10, 10)),
        label=LabelEdit(target="Mass"),
        poison_rate=1.0,
    )
    ledger = trigger_every(np.array([0, 1]), settings, 0)
    seen = stamp(ledger, contract, {1: change})(film, 1).astype(float)
    without = stamp(ledger, contract)(film, 1).astype(float)
    off = np.abs(seen - without - np.rint(change * 255))
    # A smoothing resize mixes what lies at the border of the change.
    assert off[5:11, 3:8].max() <= 1
    assert (off > 1).sum() <= (0 if resize == "nearest" else 60)
    other = stamp(ledger, contract, {1: change})(film, 0)
    np.testing.assert_array_equal(other, stamp(ledger, contract)(film, 0))
