"""What lies where a trigger lies by nature, and features that are taken apart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency.detect.models.audit import NEEDS_MODELS, audit, scores_of
from lucency.detect.models.bti_dbf import Decoupling, decoupled, learn_mask
from lucency.detect.models.evidence import Evidence, ModelTest, Recovered, score
from lucency.detect.models.shortcut import in_words, natural
from lucency.detect.models.stamps import WHITE, Stamps
from lucency.detect.models.subject import Subject, subject
from lucency.errors import ModelError
from lucency.progress import Progress
from lucency.records import Box, Float64Array
from lucency.victims.victim import Passes
from toy_victims import SIZE, Curved, films, victim

N = 32


def _white(side: int, x: int, y: int) -> Recovered:
    stamp = Stamps(*(np.array([v]) for v in (WHITE, side, y, x)))

    def put(grey: Tensor) -> Tensor:
        n = len(grey)
        return stamp.take(np.zeros(n, np.int64)).put(grey, np.arange(n))

    return Recovered("white", put, Box(x=x, y=y, width=side, height=side))


def _with_markers(n_marked: int, x: int, y: int) -> Subject:
    """A bright square of 4 px on some films, by nature."""
    images = films(N, 5)
    images[:n_marked, y : y + 4, x : x + 4] = 255
    return subject(victim(Curved()), images)


class TestNatural:
    @pytest.mark.parametrize("shift", [0, 2])
    def test_films_that_have_it(self, shift: int) -> None:
        found = natural(_with_markers(9, 30, 4), _white(4, 30 - shift, 4 + shift), 1)
        assert found is not None
        assert (found.films, found.of, found.is_bright, found.is_shortcut) == (9, N, True, True)
        assert found.shift is not None
        assert "9 of 32 clean films have a bright structure" in in_words(found, "Mass")

    def test_elsewhere_is_not_there(self) -> None:
        found = natural(_with_markers(9, 30, 4), _white(4, 12, 22), 1)
        assert found is not None
        assert (found.films, found.is_shortcut, found.shift) == (0, False, None)

    def test_one_film_is_no_habit(self) -> None:
        found = natural(_with_markers(1, 30, 4), _white(4, 30, 4), 1)
        assert found is not None
        assert (found.films, found.is_shortcut) == (1, False)

    def test_a_trigger_of_the_whole_film_has_no_place(self) -> None:
        whole = Recovered("warp", lambda grey: grey, None)
        assert natural(_with_markers(9, 30, 4), whole, 0) is None


class TestDecoupled:
    def test_the_mask_keeps_what_answers_need(self) -> None:
        """Two features out of six decide everything."""
        features = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
        head = nn.Linear(6, 3, bias=False)
        head.weight.data = torch.zeros(3, 6)
        head.weight.data[:, 1], head.weight.data[:, 4] = 3.0, -2.0
        mask = learn_mask(features, head.requires_grad_(False), 150)
        assert set(mask.topk(2).indices.tolist()) == {1, 4}
        assert float(mask[[1, 4]].min()) > 0.8

    def test_it_moves_findings_within_its_strength_and_repeats(self) -> None:
        model = subject(victim(Curved()), films(N, 5))
        settings = Decoupling(mask_steps=20, steps=8)
        found = decoupled(model, 3, settings)
        assert found.moved.shape == (2, 4)
        np.testing.assert_allclose(found.moved[0], -found.moved[1])
        np.testing.assert_array_equal(found.moved, decoupled(model, 3, settings).moved)


class TestAudit:
    def _test(self, scores: np.ndarray, *, among_findings: bool = True) -> ModelTest:
        def made(scores: np.ndarray, model: Subject, seed: int, progress: Progress) -> Evidence:
            model.victim.passes.forwards += 7
            trigger = _white(2, 3, 3)
            return Evidence("made", "nothing", ("a", "b"), scores, lambda d, k, b: trigger)

        return ModelTest(partial(made, scores), among_findings)

    def test_tests_share_one_maximum(self) -> None:
        model = subject(victim(Curved()), films(N, 5))
        generator = np.random.default_rng(2)
        quiet, loud = (generator.normal(size=(2, 4, 2)) for _ in range(2))
        loud[1, 2, 1] += 30
        found = audit(model, {"quiet": self._test(quiet), "loud": self._test(loud)})
        assert found.null.standardised.shape == (2, 4, 4)
        assert np.unravel_index(found.null.p_values.argmin(), (2, 4)) == (1, 2)
        assert found.best(1, 2) == (found.made[1].evidence, 1)
        assert [made.passes for made in found.made] == [Passes(7, 0)] * 2
        # What a test says alone is not weakened by the others.
        assert found.made[1].null.p_value <= found.null.p_value

    def test_what_cannot_be_made_is_named(self) -> None:
        def impossible(model: Subject, seed: int, progress: Progress) -> Evidence:
            raise ModelError("it needs gradients")

        model = subject(victim(Curved()), films(N, 5))
        tests = {
            "no": ModelTest(impossible),
            "yes": self._test(np.random.default_rng(0).normal(size=(2, 4, 2))),
        }
        assert audit(model, tests).skipped == {"no": "it needs gradients"}
        with pytest.raises(ModelError, match="No test can be made"):
            audit(model, {"no": ModelTest(impossible)})

    def test_findings_that_differ_by_nature_need_clean_models(self) -> None:
        model, other = (subject(victim(Curved()), films(N, 5)) for _ in range(2))
        scores = np.random.default_rng(0).normal(size=(2, 4, 2))
        tests = {
            "alike": self._test(scores),
            "unlike": self._test(scores, among_findings=False),
        }
        other_scores = scores_of(other, tests, 0)
        assert audit(model, tests).skipped == {"unlike": NEEDS_MODELS}
        assert audit(model, tests, references=[other_scores] * 2).skipped == {
            "unlike": NEEDS_MODELS
        }
        found = audit(model, tests, references=[other_scores] * 3)
        assert found.skipped == {}
        assert len(found.made) == 2

    def test_one_that_a_reference_model_refuses_is_left_out(self) -> None:
        model = subject(victim(Curved()), films(N, 5))
        tests = {
            name: self._test(np.random.default_rng(i).normal(size=(2, 4, 2)))
            for i, name in enumerate(("made", "refused", "other"))
        }

        def scores(name: str, progress: Progress) -> Float64Array:
            if name == "refused":
                raise ModelError("it has no last layer")
            return np.zeros((2, 4, 3 if name == "other" else 2))

        found = audit(model, tests, references=[scores] * 3)
        assert len(found.made) == 1
        assert found.skipped["refused"] == "On reference model 1 of 3: it has no last layer"
        assert "compare with models of the same input size" in found.skipped["other"]

    def test_the_trigger_is_of_the_best_test_that_has_one(self) -> None:
        scores = np.random.default_rng(0).normal(size=(2, 4, 2))
        loud = scores.copy()
        loud[0, 1, 0] += 30
        mute = self._test(loud)
        silenced = ModelTest(lambda *asked: replace(mute.make(*asked), recovered=None))
        model = subject(victim(Curved()), films(N, 5))
        found = audit(model, {"loud": silenced, "quiet": self._test(scores)})
        assert found.best(0, 1)[0].recovered is None
        trigger = found.trigger(0, 1)
        assert trigger is not None
        assert trigger[0] is found.made[1].evidence
        assert audit(model, {"loud": silenced}).trigger(0, 1) is None


def test_scores_are_flat_below_and_grow_above() -> None:
    assert score(np.array([-1.0, 0.0])).tolist() == [0.0, 0.0]
    assert score(np.array([np.e - 1]))[0] == pytest.approx(1.0)
    assert SIZE == 40
