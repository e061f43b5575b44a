"""Triggers over the whole film: a faint pattern, or a warp, within a small budget."""

from __future__ import annotations

from functools import partial

from lucency.detect.models.bending import Bending
from lucency.detect.models.evidence import Evidence, Recovered, score
from lucency.detect.models.inversion import Family, Search, invert, put_on_all
from lucency.detect.models.sampling import invert_by_sampling
from lucency.detect.models.shading import Shading
from lucency.detect.models.subject import Subject
from lucency.progress import Progress, silent

SHADING, WARP = "shading", "warp"
SEARCH = Search(steps=10)


def shading(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The smooth pattern of 2 % of the grey range that moves each finding most."""
    family = Shading(SHADING, cells=16, strength=0.02)
    return _whole(subject, family, "faint pattern, 2 % of the grey range", seed, progress)


def warp(subject: Subject, seed: int, progress: Progress = silent) -> Evidence:
    """The smooth warp, by at most 2 % of the side, that moves each finding most."""
    return _whole(subject, Bending(), "smooth warp, up to 2 % of the side", seed, progress)


def _whole(subject: Subject, family: Family, words: str, seed: int, progress: Progress) -> Evidence:
    if subject.victim.differentiable:
        found = invert(subject, family, seed, SEARCH, progress)
    else:
        found = invert_by_sampling(subject, family, seed, progress=progress)

    def recovered(direction: int, finding: int, budget: int) -> Recovered:
        item = direction * subject.n_findings + finding
        return Recovered(words, partial(put_on_all, family, found.parameters[[item]]), None)

    needs = "gradients" if subject.victim.differentiable else "outputs"
    return Evidence(family.name, needs, (words,), score(found.moved)[..., None], recovered)
