"""A network from the user's own code: called as asked, and refused when it is something else."""

import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lucency.errors import ModelError
from lucency.victims.card import load_victim, save_victim
from lucency.victims.factory import build_by_factory, is_factory
from lucency.victims.victim import predict

MODULE = """
import torch
from torch import nn

LEARNED = 7

class Net(nn.Module):
    def __init__(self, channels=1, outputs=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3)
        self.head = nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3)))

def both(channels, n_findings): return Net(channels, n_findings)
def turned(n_findings, channels): return Net(channels, n_findings)
def others(c, k, *, wide=False): return Net(c, k)
def none(): return Net()
def by_name(pretrained=True, n_findings=1, channels=9): return Net(channels, n_findings)
def unasked(pretrained=True, progress=True): return Net()
def anything(*args, **kwargs): return Net()
def three(a, b, c): return Net()
def one(a): return Net()
def keyword(*, channels, path): return Net()
def text(): return "a network"
def fails(): raise KeyError("weights\\nlost")
def triple(): return lambda: Net()
def drawing(): torch.rand(3); return Net()
class Dictionary(Net):
    def forward(self, x): return {"logits": super().forward(x)}
class Double(Net):
    def forward(self, x): return super().forward(x).argmax(1)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_tests").mkdir()
    (tmp_path / "mine_for_tests" / "nets.py").write_text(MODULE)
    (tmp_path / "mine_for_tests" / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [n for n in sys.modules if n.startswith("mine_for_tests")]:
        del sys.modules[name]


def place(name):
    return f"mine_for_tests.nets:{name}"


@pytest.mark.parametrize(
    ("name", "channels", "outputs"),
    [
        ("both", 3, 5),
        ("turned", 3, 5),
        ("others", 3, 5),
        ("by_name", 3, 5),
        ("none", 1, 3),
        ("unasked", 1, 3),
        ("anything", 1, 3),
        ("Net", 3, 3),
    ],
)
def test_a_factory_gets_what_it_asks_for(name, channels, outputs):
    network = build_by_factory(place(name), 3, 5)
    assert (network.first.in_channels, network.head.out_features) == (channels, outputs)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("mine_for_tests.absent:both", "ModuleNotFoundError: .*PYTHONPATH"),
        ("absent_for_tests:both", "but absent_for_tests gives ModuleNotFoundError"),
        ("mine_for_tests.broken:both", "gives ZeroDivisionError"),
        (place("absent"), "has no absent"),
        (place("LEARNED"), "has LEARNED, a int"),
        (place("three"), r"needs \(a, b, c\)"),
        (place("one"), r"needs \(a\)"),
        (place("keyword"), r"needs \(channels, path\)"),
        (place("text"), "return a torch.nn.Module, got str"),
        (place("triple"), "got function"),
        (place("fails"), r"raised KeyError: 'weights.*lost'\."),
    ],
)
def test_what_is_no_factory_is_refused(architecture, said):
    with pytest.raises(ModelError, match=said) as caught:
        build_by_factory(architecture, 1, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a:b", True), ("a.b_c.d:E2", True), ("a", False), ("a:", False), (":b", False),
        ("a:b:c", False), ("a b:c", False), ("../a:b", False), (".a:b", False), ("a:b.c", False),
        ("a:b\n", False), ("é:b", False),
    ],
)  # fmt: skip
def test_the_spelling_of_a_factory(text, is_one):
    assert is_factory(text) == is_one


def write_card(folder, name, *, weights='"weights.safetensors"', findings='["A", "B", "C"]'):
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(
        textwrap.dedent(f"""
        [model]
        architecture = "{place(name)}"
        weights = {weights}
        findings = {findings}
        [input]
        size = 32
        """)
    )
    return folder


def test_a_card_fills_the_network(tmp_path, films):
    network = build_by_factory(place("none"), 1, 3)
    folder = write_card(tmp_path / "model", "none")
    save_file(network.state_dict(), folder / "weights.safetensors")
    victim = load_victim(folder, run_code=True)
    assert all(
        torch.equal(v, network.state_dict()[k]) for k, v in victim.network.state_dict().items()
    )
    save_victim(tmp_path / "again", victim, place("none"), "")
    np.testing.assert_array_equal(
        predict(load_victim(tmp_path / "again", run_code=True), films), predict(victim, films)
    )


def test_a_card_calls_nothing_that_the_user_did_not_allow(tmp_path):
    folder = write_card(tmp_path / "model", "none", weights='""')
    card = (folder / "model.toml").read_text()
    for architecture in (place("none"), "http.server:test", "os:abort"):
        (folder / "model.toml").write_text(card.replace(place("none"), architecture))
        with pytest.raises(ModelError, match=f"names code to call, {architecture}, .* --run-code"):
            load_victim(folder)


def test_a_factory_may_bring_its_own_weights(tmp_path, films):
    folder = write_card(tmp_path / "model", "none", weights='""')
    assert predict(load_victim(folder, run_code=True), films).shape == (7, 3)


def test_a_factory_leaves_the_global_generator_alone(tmp_path):
    before = torch.random.get_rng_state()
    build_by_factory(place("drawing"), 1, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "findings", "said"),
    [
        ("none", '["A", "B"]', "an output for each of the 2 findings .* got 3"),
        ("none", '["A", "B", "", "C"]', "each of the 4 findings .* got 3"),
        ("Dictionary", '["A", "B", "C"]', "one float tensor .* got dict"),
        ("Double", '["A", "B", "C"]', r"one float tensor .* got torch.int64 of shape \(1,\)"),
    ],
)
def test_outputs_that_do_not_fit_the_card_are_refused_at_once(tmp_path, name, findings, said):
    folder = write_card(tmp_path / "model", name, weights='""', findings=findings)
    with pytest.raises(ModelError, match=said):
        load_victim(folder, run_code=True)
