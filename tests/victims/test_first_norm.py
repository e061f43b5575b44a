"""The first batch norm tells the range of a network's training films."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lucency.data.preprocess import InputContract
from lucency.victims.contract_check import check_victim
from lucency.victims.first_norm import FirstNorm, first_norm_fault, look_at_first_norm
from lucency.victims.victim import Victim, normalise, to_grey

CONTRACT = InputContract(size=16)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6, momentum=None)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.first(x))).mean((2, 3)))


def films(n=24, seed=0):
    generator = np.random.default_rng(seed)
    shades = np.kron(generator.uniform(20, 230, (n, 4, 4)), np.ones((4, 4)))
    return (shades + generator.uniform(-15, 15, shades.shape)).astype(np.uint8)


@pytest.fixture
def trained():
    """A victim whose batch norm has seen other films of the same kind."""
    network = Net().train()
    with torch.no_grad():
        network(normalise(to_grey(films(200, seed=1), torch.device("cpu")), CONTRACT))
    return Victim(network.eval(), CONTRACT, ("A", "B"))


def test_what_is_seen_is_the_mean_and_variance_of_every_channel(trained):
    seen, some = look_at_first_norm(trained, films(5)), films(5)
    weight, bias = (p.detach().numpy().astype(float) for p in trained.network.first.parameters())
    for channel in range(6):
        values = []
        for film in some:
            x = (film / 255 - 0.5) / 0.25
            for i in range(14):
                for j in range(14):
                    window = x[i : i + 3, j : j + 3]
                    values.append((window * weight[channel, 0]).sum() + bias[channel])
        assert seen.mean[channel] == pytest.approx(np.mean(values), rel=1e-3, abs=1e-4)
        assert seen.variance[channel] == pytest.approx(np.var(values, ddof=1), rel=1e-3)
    np.testing.assert_array_equal(seen.remembered_mean, trained.network.norm.running_mean.double())
    np.testing.assert_array_equal(
        seen.remembered_variance, trained.network.norm.running_var.double()
    )


def test_films_scaled_as_in_training_say_nothing(trained):
    assert first_norm_fault(look_at_first_norm(trained, films())) is None
    assert check_victim(trained, films()) == ()


@pytest.mark.parametrize(
    ("change", "ratio"),
    [
        ({"mean": (0.0,), "std": (1.0,)}, "0.2"),
        ({"std": (0.5,)}, "0.5"),
        ({"mean": (0.0,), "std": (1 / 255,)}, "6"),
        ({"std": (1 / 2048,)}, "5"),
    ],
)
def test_films_scaled_otherwise_are_told_with_the_ratio(trained, change, ratio):
    wrong = replace(trained, contract=CONTRACT.model_copy(update=change))
    said = first_norm_fault(look_at_first_norm(wrong, films()))
    assert f"the network sees {ratio}" in said
    assert "check [input] mean and std" in said
    assert said in check_victim(wrong, films())


def test_a_shift_alone_is_told(trained):
    seen = look_at_first_norm(trained, films())
    assert "about a mean" in first_norm_fault(
        seen._replace(mean=seen.remembered_mean + 1.6 * np.sqrt(seen.remembered_variance))
    )


def test_dead_channels_do_not_count():
    def seen(variance):
        remembered = np.array([1.0, 1.0, 1.0, 1e-9, 1e-9])
        return FirstNorm(np.zeros(5), remembered, np.zeros(5), np.array(variance))

    assert first_norm_fault(seen([1.0, 1.0, 1.0, 9.0, 9.0])) is None
    assert first_norm_fault(seen([9.0, 9.0, 1.0, 1e-9, 1e-9])) is not None
    assert first_norm_fault(seen([1.0] * 5)._replace(remembered_variance=np.zeros(5))) is None


@pytest.mark.parametrize(
    "network",
    [nn.Conv2d(1, 1, 1), Net(), nn.BatchNorm2d(1, track_running_stats=False), nn.BatchNorm2d(1)],
    ids=["no norm", "never trained", "no memory", "fresh"],
)
def test_a_network_that_remembers_nothing_says_nothing(network):
    assert look_at_first_norm(Victim(network.eval(), CONTRACT, ("A",)), films(2)) is None


def test_the_look_leaves_no_trace(trained):
    before, given = {k: v.clone() for k, v in trained.network.state_dict().items()}, films(4)
    look_at_first_norm(trained, given)
    assert all(torch.equal(v, before[k]) for k, v in trained.network.state_dict().items())
    assert all(not m._forward_pre_hooks for m in trained.network.modules())
    np.testing.assert_array_equal(given, films(4))
    assert trained.passes.forwards == 0
    wide = replace(trained, contract=InputContract(size=16, channels=3))
    with pytest.raises(RuntimeError, match="channels"):
        look_at_first_norm(wide, given)
    assert all(not m._forward_pre_hooks for m in trained.network.modules())
