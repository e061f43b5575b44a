"""How many flags clean images give: against every ordering of calibration films and images."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from lucency.report.chance import Group, chance, positive_predictive_value
from lucency.report.screen_record import Power


def law(group: Group, alpha: float) -> list[Fraction]:
    """Probability of 0, 1, … flags: all orderings of the films are equally likely."""
    n, m = group.n_calibration, group.n_images
    counts = [0] * (m + 1)
    for order in itertools.permutations(range(n + m)):
        clean, suspects = order[:n], order[n:]
        flags = 0
        for suspect in suspects:
            larger = sum(film >= suspect for film in clean)
            flags += (1 + larger) / (n + 1) <= alpha
        counts[flags] += 1
    return [Fraction(count, sum(counts)) for count in counts]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 0.4, 0.79, 1.0])
@pytest.mark.parametrize("group", [Group(3, 4), Group(2, 1), Group(1, 4), Group(4, 0)])
def test_one_group_against_every_ordering(group: Group, alpha: float) -> None:
    expected = law(group, alpha)
    for flagged in range(group.n_images + 2):
        assert chance(flagged, [group], alpha) == pytest.approx(float(sum(expected[flagged:])))


@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.5])
def test_two_groups_against_every_pair(alpha: float) -> None:
    groups = (Group(3, 4), Group(2, 3))
    first, second = (law(group, alpha) for group in groups)
    for flagged in range(7):
        expected = sum(
            a * b
            for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second))
            if i + j >= flagged
        )
        assert chance(flagged, groups, alpha) == pytest.approx(float(expected))
        assert chance(flagged, [*groups, Group(0, 5)], alpha) == pytest.approx(float(expected))


def test_nothing_flagged_and_nothing_screened() -> None:
    assert chance(0, [], 0.01) == 1.0
    assert chance(0, [Group(100, 299)], 0.01) == 1.0


def test_too_many_to_work_out_is_said() -> None:
    groups = [Group(10_000, 299), Group(10_000, 299)]
    assert chance(5_000, groups, 0.01) is None
    assert chance(5_000, groups[:1], 0.01) == pytest.approx(0.0, abs=1e-12)


def test_what_a_flag_is_worth() -> None:
    # Of 100,000 images, 100 are triggered: 95 of them and 999 clean ones are flagged.
    power = Power(tpr=0.95, prior=0.001, source="")
    assert positive_predictive_value(power, 0.01) == pytest.approx(95 / (95 + 999))
    assert positive_predictive_value(Power(tpr=0, prior=0.5, source=""), 0.0) is None
