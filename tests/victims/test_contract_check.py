"""A model with exactly one fault is told by that fault, with its numbers; a sound one by none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.errors import ModelError
from lucency.victims import contract_faults as faults
from lucency.victims.architectures import build
from lucency.victims.contract_check import LOOKED_AT, check_victim, require_outputs
from lucency.victims.victim import Passes, Victim

SIZE = 16
FINDINGS = ("Effusion", "Mass", "Nodule")
CONTRACT = InputContract(size=SIZE)


def films(n=12, seed=0, dtype=np.uint8, top=1.0):
    """Broad shades with noise, between black and `top` of the range."""
    generator = np.random.default_rng(seed)
    shades = np.kron(generator.uniform(0.1, 0.8, (n, 4, 4)), np.ones((1, SIZE // 4, SIZE // 4)))
    noisy = (shades + generator.normal(0, 0.05, shades.shape)).clip(0.02, 0.98)
    return np.round(top * np.iinfo(dtype).max * noisy).astype(dtype)


class Reader(nn.Module):
    """Finding k is the mean of quarter k, minus a half, times `gain`; then `after`."""

    def __init__(self, gain=4.0, after=None, n=3, channels=1):
        super().__init__()
        self.first = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.first.weight, 1 / channels)
        nn.init.zeros_(self.first.bias)
        self.gain, self.after, self.n = gain, after or (lambda logits: logits), n

    def forward(self, x):
        quarters = nn.functional.adaptive_avg_pool2d(self.first(x), 2).flatten(1)
        return self.after(self.gain * quarters.repeat(1, 4)[:, : self.n])


def victim(network=None, contract=CONTRACT, **more):
    return Victim((network or Reader()).eval(), contract, FINDINGS, **more)


def probable(network=None, **more):
    return victim(network or Reader(after=torch.sigmoid), outputs="probabilities", **more)


# --- sound models say nothing ---------------------------------------------------------------------

RANGES = {
    "[-2, 2]": CONTRACT,
    "[0, 1]": InputContract(size=SIZE, mean=(0.0,), std=(1.0,)),
    "[0, 255]": InputContract(size=SIZE, mean=(0.0,), std=(1 / 255,)),
    "[-1024, 1024]": InputContract(size=SIZE, mean=(0.5,), std=(1 / 2048,)),
    "ImageNet": InputContract(
        size=SIZE, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
}


@pytest.mark.parametrize("contract", RANGES.values(), ids=RANGES)
def test_a_sound_model_says_nothing_whatever_its_range(contract):
    gain = 4 / (faults.contract_range(contract)[1] - faults.contract_range(contract)[0])
    sound = victim(Reader(4 * gain, channels=contract.channels), contract)
    assert check_victim(sound, films()) == ()
    assert sound.passes == Passes(forwards=12)


@pytest.mark.parametrize(
    "sound",
    [
        probable(),
        probable(Reader(after=lambda z: torch.sigmoid(z - 6))),  # rare findings
        victim(Reader(after=lambda z: z.double())),
        victim(Reader(n=5), columns=(0, 3, 4)),
        victim(engine=lambda batch: (Reader()(batch), None)),
        victim(bf16=True),
    ],
    ids=["probabilities", "rare", "float64", "columns", "engine", "bf16"],
)
def test_a_sound_model_says_nothing_whatever_its_form(sound):
    assert check_victim(sound, films()) == ()
    assert check_victim(sound, films(dtype=np.uint16)) == ()


def test_networks_fresh_from_the_seed_run():
    network = build("densenet-small", 1, 3, seed=0).eval()
    fresh = Victim(network, InputContract(size=32), FINDINGS)
    shades = np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype(np.uint8)
    assert all("No logit moves" in said for said in check_victim(fresh, shades))


def test_at_most_64_films_are_looked_at_evenly():
    seen = []

    def after(logits):
        seen.append(logits.clone())
        return logits

    checked = victim(Reader(after=after))
    many = films(200)
    check_victim(checked, many)
    assert checked.passes == Passes(forwards=LOOKED_AT)
    expected = victim().logits(
        torch.from_numpy(many[np.arange(64) * 200 // 64] / 255.0).float()[:, None]
    )
    torch.testing.assert_close(torch.cat(seen), expected)


def test_images_and_network_are_left_as_they_were():
    given, checked = films(), victim(Reader().train())
    before = given.copy()
    check_victim(checked, given)
    np.testing.assert_array_equal(given, before)
    assert all(p.grad is None and p.requires_grad for p in checked.network.parameters())


# --- the hopeless ---------------------------------------------------------------------------------


def spoil(value, column=1):
    def after(logits):
        return logits.index_fill(1, torch.tensor([column]), value)

    return after


@pytest.mark.parametrize(
    ("checked", "said"),
    [
        (victim(Reader(after=spoil(float("nan")))), r"finite outputs, got 12 of 36 .*\(Mass\)"),
        (victim(Reader(after=spoil(float("inf")))), r"finite outputs, got 12 of 36"),
        (victim(Reader(n=4)), "each of the 3 findings, got 4; name all outputs"),
        (victim(Reader(n=2)), "each of the 3 findings, got 2"),
        (victim(Reader(n=4), columns=(0, 4, 1)), "at least 5 outputs, since Mass is number 5, got"),
        (victim(Reader(channels=3)), r"first convolution takes 3 channel\(s\), .*channels = 1"),
        (
            victim(contract=InputContract(size=SIZE, channels=3)),
            r"first convolution takes 1 channel\(s\), .*channels = 3",
        ),
        (victim(nn.Linear(7, 3)), r"input of shape \(12, 1, 16, 16\), but gives RuntimeError"),
        (victim(nn.Flatten(0)), r"one float tensor \(N, findings\) for N = 12 films, got torch"),
        (victim(Reader(after=lambda z: (z, z))), "got tuple; wrap it"),
        (victim(Reader(after=lambda z: z > 0)), r"got torch.bool of shape \(12, 3\)"),
        (victim(Reader(after=lambda z: z.mean(0, keepdim=True))), r"of shape \(1, 3\)"),
        (victim(Reader(gain=0)), r"the same on all 12 reference films \(first output 0\)"),
        (victim(Reader(gain=1e-9)), r"put films into \[-2, 2\]: is that the range"),
        (
            victim(Reader(after=lambda z: torch.sigmoid(z) * 0 + 0.7), outputs="probabilities"),
            r"the same on all 12 reference films \(first output 0.7\)",
        ),
        (victim(outputs="probabilities"), r"must lie in \[0, 1\] .*got \[-\d.*= \"logits"),
        (probable(Reader(after=lambda z: torch.sigmoid(z) + 0.2)), r"got \[0\.2\d*, 1\.\d+\]"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(checked, said):
    with pytest.raises(ModelError, match=said):
        check_victim(checked, films())


def saturated(x):
    """A network for [0, 1] that is fed [0, 255]: its tanh is full on every film."""
    return torch.tanh(40 * x - 20)


def test_a_wrong_range_that_makes_outputs_identical_is_told_as_such():
    wrong = InputContract(size=SIZE, mean=(0.0,), std=(1 / 255,))
    network = Reader(after=saturated)
    with pytest.raises(ModelError, match=r"probable cause is \[input\] mean and std.* \[0, 255\]"):
        check_victim(victim(network, wrong), films())


@pytest.mark.parametrize("shape", [(0, 16, 16), (3, 16, 17), (3, 1, 16, 16), (16, 16)])
def test_films_of_another_shape_are_refused(shape):
    with pytest.raises(ModelError, match=r"shape \(N, 16, 16\), N at least 1, got"):
        check_victim(victim(), np.zeros(shape, np.uint8))


# --- warnings: each by a model or films with exactly that fault -----------------------------------


def centred(logits):
    return logits - logits.mean()


def one(checked, images=None):
    """The only warning."""
    found = check_victim(checked, films() if images is None else images)
    assert len(found) == 1, found
    assert found[0].endswith((".", "?"))
    return found[0]


def test_a_constant_finding_is_named_with_its_value():
    said = one(victim(Reader(after=spoil(-1.25))))
    assert "same on all 12 reference films: Mass (-1.25);" in said
    assert "Effusion" not in said


def test_probabilities_declared_as_logits():
    said = one(victim(Reader(after=torch.sigmoid)))
    assert 'but the card says outputs = "logits"' in said
    assert "All 36 outputs lie in [0.0" in said
    assert 'set outputs = "probabilities"' in said
    assert "twice" not in said


def test_a_double_sigmoid_is_noticed_under_either_name():
    def twice(logits):
        return torch.sigmoid(torch.sigmoid(logits))

    said = one(probable(Reader(after=twice)))
    assert "All 36 probabilities lie in [0.5" in said
    assert "[0.5, 0.7311]" in said
    assert "is a sigmoid applied twice?" in said
    assert "is a sigmoid applied twice?" in one(victim(Reader(after=twice)))


def test_a_softmax_is_noticed():
    said = one(probable(Reader(after=lambda z: torch.softmax(z, 1))))
    assert "The 3 probabilities of each reference film add up to 1" in said


def test_a_tiny_range_of_logits():
    said = one(victim(Reader(gain=0.01, after=lambda z: z - 3)))
    assert "No logit moves by more than 0.0" in said
    assert "12 reference films" in said


def test_saturated_outputs():
    said = one(victim(Reader(gain=300)))
    assert "% of the outputs are nearer than 1e-6 to probability 0 or 1" in said


@pytest.mark.parametrize(
    ("contract", "gain", "said"),
    [
        ({"mean": (123.675,), "std": (58.395,)}, 400, "mean outside [0, 1]"),
        ({"mean": (0.5,), "std": (58.395,)}, 400, "only 0.0171 between black and white"),
        ({"mean": (0.0,), "std": (1 / 65535,)}, 1e-4, "into [0, 65535]"),
        ({"mean": (0.5, 0.5, 1.5), "std": (0.25,), "channels": 3}, 4, "mean outside [0, 1]"),
    ],
)
def test_scaling_that_cannot_be_meant(contract, gain, said):
    chosen = InputContract(size=SIZE, **contract)
    network = Reader(gain, centred, channels=chosen.channels)
    assert said in one(victim(network, chosen))


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_films_read_in_too_deep_a_container(bits):
    dark = films(dtype=np.uint16, top=2**bits / 65536)
    said = one(victim(Reader(2e3 / 2 ** (bits - 8), centred)), dark)
    assert "only the bottom of their 16-bit range (brightest pixel" in said
    assert f"brightest pixel {dark.max()} of 65535, mean grey" in said


def test_black_films_with_one_bright_pixel_are_dark_all_the_same():
    dark = films(top=0.02)
    dark[:, 0, 0] = 255
    assert "brightest pixel 255 of 255, mean grey 1." in one(victim(Reader(200, centred)), dark)


def test_flat_films_are_counted():
    mixed = films()
    mixed[[2, 5]] = 100
    assert "2 of 12 reference films are of nearly one grey value" in one(victim(), mixed)


def test_thresholded_films():
    said = one(victim(), np.where(films() > 110, 255, 0).astype(np.uint8))
    assert "100 % of the reference films' pixels are pure black or pure white" in said


@pytest.mark.parametrize("n", [1, 5])
def test_films_that_are_all_one_cannot_tell(n):
    same = np.repeat(films(1), n, axis=0)
    said = one(victim(Reader(gain=0, after=lambda z: z - 3)), same)
    assert f"The {n} reference film(s) looked at are all the same" in said


# --- the edges of each fault ----------------------------------------------------------------------


def column(*values):
    return np.array(values, np.float32).reshape(-1, 1)


@pytest.mark.parametrize(
    ("values", "is_still"),
    [
        ([1.0, 1.0], True), ([1.0, 1.0 + 1e-6], True), ([1.0, 1.001], False), ([0.0, 1e-4], False),
        ([1000.0, 1000.005], True), ([1000.0, 1000.1], False), ([-3.0], True),
    ],
)  # fmt: skip
def test_what_counts_as_constant(values, is_still):
    assert bool(faults.is_constant(column(*values))[0]) == is_still


@pytest.mark.parametrize(
    ("values", "is_fault"),
    [
        ([0.5] * 8, True), ([0.7310585] * 8, True), ([0.5] * 7 + [0.49], False),
        ([0.5] * 7 + [0.74], False), ([0.6] * 7, False),
    ],
)  # fmt: skip
def test_the_edges_of_a_double_sigmoid(values, is_fault):
    assert (faults.double_sigmoid_fault(column(*values)) is not None) == is_fault


@pytest.mark.parametrize(
    ("values", "is_fault"),
    [
        ([0.0, 1.0] * 4, True), ([0.5] * 7, False), ([0.5] * 7 + [-1e-3], False),
        ([0.5] * 7 + [1.001], False),
    ],
)  # fmt: skip
def test_the_edges_of_undeclared_probabilities(values, is_fault):
    assert (faults.undeclared_probabilities_fault(column(*values)) is not None) == is_fault


@pytest.mark.parametrize(
    ("values", "is_fault"),
    [([0, 1], False), ([-1e-7, 1], False), ([-1e-3, 1], True), ([2, 0], True)],
)
def test_the_edges_of_probabilities(values, is_fault):
    assert (faults.outside_probabilities_fault(column(*values)) is not None) == is_fault


@pytest.mark.parametrize(("spread", "is_fault"), [(0.049, True), (0.051, False), (0.0, False)])
def test_the_edges_of_a_small_spread(spread, is_fault):
    assert (faults.small_spread_fault(column(-3, spread - 3)) is not None) == is_fault
    assert faults.small_spread_fault(column(-3)) is None


def test_a_finding_is_only_constant_beside_others_that_move():
    still, moving = column(1, 1, 1), column(1, 2, 3)
    assert faults.constant_finding_fault(np.hstack([still, still]), ("A", "B")) is None
    assert faults.constant_finding_fault(np.hstack([moving, moving]), ("A", "B")) is None
    assert "A (1)" in faults.constant_finding_fault(np.hstack([still, moving]), ("A", "B"))


# --- once, when a card is loaded ------------------------------------------------------------------


def test_require_outputs():
    require_outputs(Reader().eval(), CONTRACT, 3)
    with pytest.raises(ModelError, match=r"each of the 4 findings .*\(blank ones .* got 3"):
        require_outputs(Reader().eval(), CONTRACT, 4)
    with pytest.raises(ModelError, match="first convolution takes 3"):
        require_outputs(Reader(channels=3).eval(), CONTRACT, 3)


def test_passes_are_added_not_replaced():
    checked = replace(victim(), passes=Passes(forwards=5))
    check_victim(checked, films(3))
    assert checked.passes == Passes(forwards=8)
