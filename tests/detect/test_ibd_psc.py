"""IBD-PSC against a slow second implementation, its direction, and the faults of other versions."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lucency.data.preprocess import InputContract
from lucency.detect.images import ibd_psc
from lucency.detect.images.amplify import amplified, amplified_logits, batch_norms
from lucency.detect.images.ibd_psc import PUBLISHED, IbdPscSettings, agreement, first_below
from lucency.errors import ModelError
from lucency.victims.architectures import build
from lucency.victims.victim import Victim
from suspicion_conformance import check_conformance, check_network_is_left, check_refusals
from toy_victims import FINDINGS, SIZE, Toy, films, stamped, victim

K = len(FINDINGS)
DEPTH = 6
PLACES = [(12, 9), (30, 21), (5, 33)]


def _layer(width: int) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(width, eps=0.0)
    layer.running_mean, layer.running_var = torch.zeros(width), torch.ones(width)
    return layer


class Saturating(nn.Module):
    """Six batch norms, named against their order. What clean films show of a finding is bounded, so
    louder layers drown it in the crowd; what a black square adds to finding 0 is not."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0x1B)
        for i in range(DEPTH):
            setattr(self, f"norm{DEPTH - i}", _layer(K + 1))
        self.unused, self.plain = _layer(K + 1), nn.BatchNorm1d(K + 1, affine=False, eps=0.0)
        self.sign = sign
        self.weights = nn.Parameter(0.02 * torch.randn(K, SIZE, SIZE, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        darkness = avg_pool2d(1 - x, 2, stride=1).amax(dim=(1, 2, 3))
        trigger = (darkness - 0.85).clamp(min=0) / 0.15
        shown = torch.einsum("nhw,khw->nk", x[:, 0] - 0.6, self.weights)
        hidden = self.plain(torch.cat([0.3 * shown, trigger[:, None]], dim=1))
        for i in range(1, DEPTH + 1):
            hidden = getattr(self, f"norm{i}")(hidden)
        logits = 4 * torch.tanh(hidden[:, :K])
        return logits + self.sign * 6 * nn.functional.one_hot(torch.tensor(0), K) * hidden[:, K:]


class Uneven(nn.Module):
    """Batch norms before convolutions with biases and a head with one: nothing is homogeneous."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.BatchNorm2d(6), nn.BatchNorm2d(1)
        self.middle = nn.BatchNorm2d(4)
        self.first, self.second = nn.Conv2d(1, 4, 5, stride=3), nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, K)
        generator = torch.Generator().manual_seed(0x1D)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        for buffer in (self.late, self.middle, self.early):
            buffer.running_mean = torch.randn(buffer.num_features, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(torch.relu(self.early(x)))
        x = self.second(torch.relu(self.middle(x)))
        return self.head(torch.relu(self.late(x)).mean(dim=(2, 3)))


ORDER = ("early", "middle", "late")


def _logits(network: nn.Module, film: np.ndarray) -> list[float]:
    with torch.no_grad():
        return [
            float(z)
            for z in network(torch.from_numpy(film.astype(np.float32) / 255)[None, None])[0]
        ]


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def _auroc(scores: list[float], positive: list[bool]) -> float | None:
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, p in zip(scores, positive, strict=True)
        if p
        for b, q in zip(scores, positive, strict=True)
        if not q
    ]
    return sum(pairs) / len(pairs) if pairs else None


class SlowIbdPsc:
    """With copies of the whole network, a film and a finding at a time, every k in turn."""

    def __init__(self, network: nn.Module, reference: np.ndarray, settings: IbdPscSettings) -> None:
        self.settings, self.reference = settings, reference
        self.network = network
        start = 1
        while (
            start + settings.copies - 1 < len(ORDER)
            and self.agreement(self.louder(start)) >= settings.agreement
        ):
            start += 1
        self.start = start
        depths = range(start, min(start + settings.copies, len(ORDER) + 1))
        self.copies = [self.louder(k) for k in depths]

    def louder(self, k: int) -> nn.Module:
        twin = copy.deepcopy(self.network)
        for name in ORDER[len(ORDER) - k :]:
            layer = getattr(twin, name)
            layer.weight.data = layer.weight.data * self.settings.factor
            layer.bias.data = layer.bias.data * self.settings.factor
        return twin

    def agreement(self, twin: nn.Module) -> float:
        own = [_logits(self.network, film) for film in self.reference]
        other = [_logits(twin, film) for film in self.reference]
        found = []
        for k in range(K):
            bound = _quantile([z[k] for z in own], self.settings.specificity)
            value = _auroc([z[k] for z in other], [z[k] > bound for z in own])
            if value is not None:
                found.append(value)
        return sum(found) / len(found)

    def excess(self, network: nn.Module, film: np.ndarray, k: int, sign: int) -> float:
        clean = [sign * _logits(network, other)[k] for other in self.reference]
        bound = _quantile(clean, self.settings.specificity)
        return (sign * _logits(network, film)[k] - bound) / (bound - _quantile(clean, 0.5))

    def consistency(self, film: np.ndarray, k: int, sign: int) -> float:
        total = 0.0
        for twin in self.copies:
            if self.settings.form == "kept":
                total += self.excess(twin, film, k, sign) - self.excess(self.network, film, k, sign)
            else:
                total += 1 / (1 + math.exp(-sign * _logits(twin, film)[k]))
        mean = total / len(self.copies)
        return 1 / (1 + math.exp(-mean)) if self.settings.form == "kept" else mean

    def score(self, film: np.ndarray) -> float:
        signs = (1, -1) if self.settings.clears else (1,)
        asked = [(k, sign) for sign in signs for k in range(K)]
        excess = [self.excess(self.network, film, k, sign) for k, sign in asked]
        predicted = [
            self.consistency(film, *one) for one, e in zip(asked, excess, strict=True) if e > 0
        ]
        if not predicted:
            return self.consistency(film, *asked[excess.index(max(excess))]) - 1
        return max(predicted) if self.settings.largest else sum(predicted) / len(predicted)


@pytest.mark.parametrize(
    "settings",
    [
        IbdPscSettings(copies=2),
        replace(PUBLISHED, copies=2),
        IbdPscSettings(copies=1, factor=2.0, agreement=0.7, specificity=0.8, largest=False),
        IbdPscSettings(copies=9, clears=False),
    ],
    ids=["default", "published", "other", "more copies than layers"],
)
def test_against_a_second_implementation(settings: IbdPscSettings) -> None:
    of, reference = _uneven(), films(12, 0xC1)
    found = ibd_psc.fit(of, reference, 0, settings)
    slow = SlowIbdPsc(of.network, reference, settings)
    assert found.layers == ORDER
    assert (found.start, len(found.copies)) == (slow.start, len(slow.copies))
    suspects = np.concatenate([films(6, 0x51), stamped(films(3, 0x52), PLACES, side=9)])
    expected = [slow.score(film) for film in suspects]
    np.testing.assert_allclose(found(suspects), expected, atol=2e-4)
    assert min(expected) < 0 < max(expected)


def _uneven() -> Victim:
    of = victim(Uneven())
    # Scaled so that findings are neither certain nor impossible.
    with torch.no_grad():
        of.network.head.weight.mul_(0.3)
    return of


def _saturating(sign: float = 1.0) -> Victim:
    return victim(Saturating(sign))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["set", "clear"])
def test_triggered_films_are_above_clean_ones(sign: float) -> None:
    suspicion = ibd_psc.fit(_saturating(sign), films(60, 0xC1), 0, IbdPscSettings(copies=3))
    clean = films(40, 0x51)
    triggered = stamped(clean, [PLACES[i % 3] for i in range(40)])
    assert np.median(suspicion(triggered)) > 0.7
    assert suspicion(triggered).min() > suspicion(clean).max()


def test_a_cleared_finding_is_missed_if_nobody_asks() -> None:
    settings = IbdPscSettings(copies=3, clears=False)
    suspicion = ibd_psc.fit(_saturating(-1.0), films(60, 0xC1), 0, settings)
    clean = films(40, 0x51)
    triggered = stamped(clean, [PLACES[i % 3] for i in range(40)])
    labels = np.arange(80) >= 40
    assert roc_auc_score(labels, np.r_[suspicion(clean), suspicion(triggered)]) < 0.6


def test_conformance(monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = np.concatenate([films(5, 0x51), stamped(films(3, 0x52), PLACES)])
    check_conformance(ibd_psc.fit, _saturating(), films(20, 0xC1), suspects, monkeypatch)
    check_refusals(ibd_psc.fit, _uneven(), films(9, 0xC1))
    check_network_is_left(ibd_psc.fit, _uneven(), films(9, 0xC1), suspects)


def test_copies_as_loud_as_the_network_are_the_network() -> None:
    of, reference, suspects = _uneven(), films(12, 0xC1), films(5, 0x51)
    kept = ibd_psc.fit(of, reference, 0, IbdPscSettings(factor=1.0))(suspects)
    np.testing.assert_allclose(np.abs(kept), 0.5, atol=1e-6)


def test_layers_are_counted_as_they_compute() -> None:
    """Named backwards, one unused, one without weights."""
    assert batch_norms(_saturating(), films(2, 1)) == tuple(f"norm{i}" for i in range(1, DEPTH + 1))


def test_a_densenet_from_stem_to_head() -> None:
    contract = InputContract(size=SIZE, mean=(0.5,), std=(0.25,))
    of = Victim(build("densenet-small", 1, K, 0).eval(), contract, FINDINGS)
    layers = batch_norms(of, films(1, 1))
    n_norms = sum(isinstance(m, nn.BatchNorm2d) for m in of.network.modules())
    assert len(layers) == len(set(layers)) == n_norms
    assert layers[0] == "features.norm0"
    assert layers[-1] == "features.norm5"
    assert layers[1].endswith("denseblock1.denselayer1.layers.norm1")
    # The last norm alone scales what enters the head, so its weights' part of the logits.
    images = films(3, 2)
    bias = of.network.class_layers.out.bias.detach().double().numpy()
    plain, louder = (amplified_logits(of, images, layers, 1, factor) for factor in (1.0, 1.5))
    np.testing.assert_allclose(louder - bias, 1.5 * (plain - bias), atol=1e-4)


def test_a_network_without_batch_norms_is_refused() -> None:
    with pytest.raises(ModelError, match=r"batch normalisations.*Toy"):
        ibd_psc.fit(victim(Toy()), films(9, 1), 0)


def test_the_engine_is_not_asked() -> None:
    def engine(batch: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError("it would answer with weights that are not amplified")

    of, reference, suspects = _uneven(), films(12, 0xC1), films(4, 0x51)
    with_engine = ibd_psc.fit(replace(of, engine=engine), reference, 0)
    np.testing.assert_array_equal(with_engine(suspects), ibd_psc.fit(of, reference, 0)(suspects))


def test_forwards_an_image() -> None:
    of = _saturating()
    suspicion = ibd_psc.fit(of, films(12, 0xC1), 0)
    before = of.passes.forwards
    suspicion(films(7, 0x51))
    assert of.passes.forwards - before == 7 * (1 + len(suspicion.copies))


def test_weights_come_back_to_the_bit_whatever_happens() -> None:
    network = Uneven()
    layers = [network.late, network.middle, network.late]
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def fail_amplified() -> None:
        with amplified(layers, 1.1):
            assert torch.equal(network.late.weight, before["late.weight"] * 1.1)
            assert torch.equal(network.middle.bias, before["middle.bias"] * 1.1)
            assert torch.equal(network.early.weight, before["early.weight"])
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_amplified()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_copy_that_overflows_is_survived() -> None:
    scores = ibd_psc.fit(_uneven(), films(12, 1), 0, IbdPscSettings(factor=1e30))(films(5, 2))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("falls_at", range(1, 15))
@pytest.mark.parametrize("last", [1, 2, 5, 8, 13])
def test_the_first_below_is_found_with_few_questions(last: int, falls_at: int) -> None:
    asked: list[int] = []

    def value_of(depth: int) -> float:
        asked.append(depth)
        return 1.0 if depth < falls_at else 0.0

    assert first_below(value_of, 0.5, last) == min(falls_at, last)
    assert len(asked) == len(set(asked)) <= 2 * math.ceil(math.log2(last + 1))


def test_agreement_is_the_macro_auroc() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(40, 4)).round(1)
    predicted = generator.random((40, 4)) < [0.1, 0.5, 0.0, 1.0]
    expected = [roc_auc_score(predicted[:, k], logits[:, k]) for k in (0, 1)]
    assert agreement(logits, predicted) == pytest.approx(np.mean(expected))
    assert agreement(logits, np.zeros((40, 4), bool)) == 1.0
