"""One suite for every row of EXPLANATIONS."""

import copy
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from explain_toys import (
    SIZE,
    Probabilities,
    make_grey,
    make_victim,
    n_hooks,
    smooth_victim,
    state,
)
from torch import Tensor, nn

from lucency.errors import ConfigError, ModelError
from lucency.explain import EXPLANATIONS, Attribution
from lucency.victims.victim import Victim

QUICK: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 3},
    "smoothgrad": {"samples": 3},
    "occlusion": {"forwards": 60},
    "rise": {"samples": 12},
    "grad-cam": {"layer": "features.denseblock2"},
}
"""Options with which a row is quick on a toy."""

PASSES = {
    "gradient-median": (1, 2),
    "gradient-input": (1, 2),
    "integrated-gradients": (3 + 2, 3 * 2),
    "smoothgrad": (3 + 1, 3 * 2),
    "cam": (1, 0),
    "grad-cam": (1, 2),
    "hirescam": (1, 2),
    "layercam": (1, 2),
    # 6 × 6 windows of 8 px, of which 5 are cut into four.
    "occlusion": (1 + 36 + 5 * 4, 0),
    "rise": (12 + 1, 0),
}
"""Forwards and backwards an image for two findings."""
WITHOUT_GRADIENTS = {"occlusion", "rise"}
"""Rows that ask for nothing but logits."""
NOT_NEGATIVE = {"grad-cam", "layercam"}


def explain(
    name: str, victim: Victim, grey: Tensor, findings: tuple[int, ...], **options: Any
) -> Attribution:
    return EXPLANATIONS[name](victim, grey, findings, **QUICK.get(name, {}), **options)


def test_every_row_is_counted() -> None:
    assert set(PASSES) == set(EXPLANATIONS)


@pytest.mark.parametrize("name", EXPLANATIONS)
class TestConformance:
    def test_a_finite_map_for_each_image_and_finding(self, name: str) -> None:
        victim, grey = make_victim(), make_grey(3)
        found = explain(name, victim, grey, (2, 0))
        assert found.findings == (2, 0)
        assert found.maps.shape[:2] == (3, 2)
        assert found.maps.ndim == 4
        assert found.maps.shape[2] <= SIZE
        assert found.maps.shape[3] <= SIZE
        assert torch.isfinite(found.maps).all()
        assert (found.maps.abs().amax(dim=(1, 2, 3)) > 0).all()
        with torch.inference_mode():
            expected = victim.logits(grey)
        torch.testing.assert_close(found.logits, expected.clone(), atol=1e-5, rtol=1e-5)
        values = [found.maps, found.logits]
        if found.completeness is not None:
            assert found.completeness.shape == (3, 2)
            values.append(found.completeness)
        for value in values:
            assert value.dtype == torch.float32
            assert not value.requires_grad
            assert not value.is_inference()

    def test_both_signs_are_kept_where_the_method_has_them(self, name: str) -> None:
        maps = explain(name, make_victim(), make_grey(3), (0, 1, 2)).maps
        assert (maps > 0).any()
        assert (maps < 0).any() == (name not in NOT_NEGATIVE)

    def test_zero_for_a_network_that_ignores_the_image(self, name: str) -> None:
        victim = make_victim()
        nn.init.zeros_(victim.network.class_layers.out.weight)
        found = explain(name, victim, make_grey(), (0, 1))
        assert torch.count_nonzero(found.maps) == 0
        assert found.warnings == ()
        if found.completeness is not None:
            assert torch.count_nonzero(found.completeness) == 0

    def test_a_finding_does_not_depend_on_the_others(self, name: str) -> None:
        if name == "occlusion":
            pytest.skip("the forwards are spent where the findings that are asked for need them")
        victim, grey = make_victim(), make_grey()
        together = explain(name, victim, grey, (2, 0, 1)).maps
        assert not torch.allclose(together[:, 0], together[:, 1])
        for place, finding in enumerate((2, 0, 1)):
            alone = explain(name, victim, grey, (finding,)).maps[:, 0]
            torch.testing.assert_close(alone, together[:, place], atol=1e-6, rtol=1e-4)

    def test_an_image_does_not_depend_on_its_batch(self, name: str) -> None:
        victim, grey = make_victim(), make_grey(3)
        together = explain(name, victim, grey, (1, 2)).maps
        shuffled = explain(name, victim, grey[[2, 0, 1]], (1, 2)).maps
        torch.testing.assert_close(shuffled, together[[2, 0, 1]], atol=1e-6, rtol=1e-4)
        for i in range(3):
            alone = explain(name, victim, grey[i : i + 1], (1, 2)).maps
            torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=1e-4)

    def test_the_micro_batch_changes_nothing(self, name: str) -> None:
        victim, grey = make_victim(), make_grey(3)
        large, small = (explain(name, victim, grey, (0, 2), budget_mb=b) for b in (4096.0, 0.001))
        torch.testing.assert_close(small.maps, large.maps, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(small.logits, large.logits, atol=1e-5, rtol=1e-5)

    def test_the_image_is_not_changed(self, name: str) -> None:
        grey = make_grey()
        before = grey.clone()
        explain(name, make_victim(), grey, (0,))
        assert torch.equal(grey, before)
        assert not grey.requires_grad

    @pytest.mark.parametrize("training", [False, True])
    def test_the_network_is_left_as_it_was(self, name: str, training: bool) -> None:
        victim = make_victim()
        network = victim.network.train(training)
        next(network.parameters()).requires_grad_(False)
        before, weights = state(network), copy.deepcopy(network.state_dict())
        found = explain(name, victim, make_grey(), (0, 1))
        assert state(network) == before
        assert n_hooks(network) == 0
        for key, value in network.state_dict().items():
            assert torch.equal(value, weights[key]), key
        expected = explain(name, make_victim(), make_grey(), (0, 1))
        torch.testing.assert_close(found.maps, expected.maps)

    def test_the_network_is_left_as_it_was_after_an_exception(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        victim = make_victim()
        network = victim.network.train()
        next(network.parameters()).requires_grad_(False)
        before = state(network)

        def fail(_: Tensor) -> Tensor:
            raise MemoryError("out of memory in the head")

        monkeypatch.setattr(network.class_layers, "forward", fail)
        for n in (1, 2):
            with pytest.raises(MemoryError):
                explain(name, victim, make_grey(n), (0,))
            assert state(network) == before
            assert n_hooks(network) == 0

    def test_passes_are_counted(self, name: str) -> None:
        victim = make_victim()
        explain(name, victim, make_grey(3), (0, 1))
        counted = (victim.passes.forwards, victim.passes.backwards)
        assert counted == (3 * PASSES[name][0], 3 * PASSES[name][1])

    def test_a_victim_without_gradients_is_refused_or_served(self, name: str) -> None:
        victim, grey = replace(make_victim(), differentiable=False), make_grey()
        if PASSES[name][1]:
            with pytest.raises(ModelError, match=r"needs gradients.*occlusion or rise"):
                explain(name, victim, grey, (0,))
            assert victim.passes.forwards == 0
        else:
            maps = explain(name, victim, grey, (0,)).maps
            expected = explain(name, make_victim(), grey, (0,)).maps
            torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-4)

    def test_the_engine_computes_where_nothing_but_logits_is_needed(self, name: str) -> None:
        victim, grey = make_victim(), make_grey()
        computed = []

        def engine(batch: Tensor) -> tuple[Tensor, None]:
            computed.append(len(batch))
            return victim.network(batch), None

        found = explain(name, replace(victim, engine=engine), grey, (1,))
        expected = explain(name, make_victim(), grey, (1,))
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-6, rtol=1e-4)
        assert sum(computed) == (2 * PASSES[name][0] if name in WITHOUT_GRADIENTS else 0)

    def test_a_bfloat16_victim_gives_float32_maps(self, name: str) -> None:
        victim, grey = make_victim(), make_grey()
        found = explain(name, replace(victim, bf16=True), grey, (0, 1))
        assert found.maps.dtype == found.logits.dtype == torch.float32
        assert torch.isfinite(found.maps).all()
        if name not in WITHOUT_GRADIENTS:
            # The drops of random weights are smaller than bfloat16 can tell.
            exact = explain(name, victim, grey, (0, 1)).maps
            cosine = torch.cosine_similarity(found.maps.flatten(), exact.flatten(), dim=0)
            assert cosine > 0.9
            assert not torch.equal(found.maps, exact)

    def test_outputs_in_another_order_and_as_probabilities(self, name: str) -> None:
        plain, grey = make_victim(), make_grey()
        network = Probabilities(plain.network).eval()
        options = {"layer": "inner.features.denseblock2"} if name == "grad-cam" else {}
        given = {**QUICK.get(name, {}), **options}
        victim = replace(plain, network=network, outputs="probabilities", columns=(2, 0, 1))
        found = EXPLANATIONS[name](victim, grey, (0, 1), **given)
        expected = explain(name, plain, grey, (2, 0))
        scale = float(expected.maps.abs().max())
        torch.testing.assert_close(found.maps, expected.maps, atol=1e-3 * scale, rtol=1e-3)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_the_caller_may_have_switched_gradients_off(self, name: str, mode: Any) -> None:
        victim = make_victim()
        expected = explain(name, victim, make_grey(), (0,)).maps
        with mode():
            found = explain(name, victim, make_grey(), (0,)).maps
        torch.testing.assert_close(found.clone(), expected)

    def test_an_image_that_requires_gradients_gets_none(self, name: str) -> None:
        grey = make_grey().requires_grad_(True)
        assert not explain(name, make_victim(), grey, (0,)).maps.requires_grad
        assert grey.grad is None

    def test_no_graph_is_left_behind(self, name: str) -> None:
        victim, seen = make_victim(), []
        for module in victim.network.modules():
            module.register_forward_hook(lambda *args: seen.append(weakref.ref(args[-1])))
        found = explain(name, victim, make_grey(2), (0, 1))
        gc.collect()
        assert len(seen) > 10
        assert [r for r in seen if r() is not None] == []
        assert found.maps.grad_fn is None

    def test_the_default_options_work(self, name: str) -> None:
        if name in ("cam", "grad-cam", "hirescam", "layercam"):
            victim, grey = make_victim(size=64), make_grey(1, 64)
        else:
            victim, grey = smooth_victim(24), make_grey(1, 24)
        found = EXPLANATIONS[name](victim, grey, (1,))
        assert found.maps.abs().max() > 0
        assert found.warnings == ()

    @pytest.mark.parametrize("findings", [(), (3,), (-1,), (0, 7)])
    def test_findings_that_do_not_exist_are_refused(
        self, name: str, findings: tuple[int, ...]
    ) -> None:
        with pytest.raises(ConfigError, match=r"indices of findings from 0 to 2, got \["):
            explain(name, make_victim(), make_grey(), findings)

    @pytest.mark.parametrize("shape", [(0, 1, 48, 48), (2, 3, 48, 48), (2, 48, 48)])
    def test_what_is_not_a_batch_of_films_is_refused(
        self, name: str, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ConfigError, match=r"at least one image, as \(N, 1, H, W\)"):
            explain(name, make_victim(), torch.rand(shape), (0,))
