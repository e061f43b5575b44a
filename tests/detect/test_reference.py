"""The clean reference set: copies, groups, and the power that its size leaves."""

import numpy as np
import pytest

from lucency.detect.false_discovery import benjamini_hochberg
from lucency.detect.images.reference import (
    GROUP,
    copies,
    group_by_view,
    n_duplicates,
    power_left,
    thumbnails,
)
from toy_victims import films, stamped


def test_a_copy_is_seen_through_a_stamp_and_through_16_bits() -> None:
    reference = films(12, 1)
    suspects = np.concatenate([stamped(reference[4:5], [(7, 9)]), films(3, 2)])
    of = thumbnails(reference)
    assert copies(thumbnails(suspects), of).tolist() == [4, -1, -1, -1]
    assert copies(thumbnails(suspects.astype(np.uint16) * 257), of).tolist() == [4, -1, -1, -1]


def test_duplicates_are_counted_once_each() -> None:
    reference = films(6, 1)
    repeated = np.concatenate([reference, reference[:2], reference[:1]])
    assert n_duplicates(thumbnails(repeated)) == 3
    assert n_duplicates(thumbnails(reference)) == 0


def test_a_view_with_few_films_shares_everyones() -> None:
    views = ["PA"] * GROUP + ["AP"] * (GROUP - 1) + [None] * 5
    groups = group_by_view(views)
    assert groups.names == ("PA",)
    assert groups.members == (*["PA"] * GROUP, *[None] * (GROUP + 4))


@pytest.mark.parametrize(
    ("n", "alpha", "said"), [(20, 0.01, "at least 99"), (30, 0.05, "guesses"), (99, 0.01, None)]
)
def test_the_power_that_is_left(n: int, alpha: float, said: str | None) -> None:
    sentence = power_left(n, alpha)
    assert (sentence is None) if said is None else (sentence is not None and said in sentence)


def test_benjamini_hochberg_against_its_definition() -> None:
    generator = np.random.default_rng(5)
    p = np.concatenate([generator.random(30), [1e-4, 2e-4, 1e-4, 1.0]])
    q = benjamini_hochberg(p)
    for level in (0.01, 0.05, 0.1, 0.3, 1.0):
        ranked = np.sort(p)
        passing = [i for i in range(len(p)) if ranked[i] <= level * (i + 1) / len(p)]
        threshold = ranked[max(passing)] if passing else -1.0
        np.testing.assert_array_equal(q <= level + 1e-12, p <= threshold)
    assert benjamini_hochberg(np.array([])).shape == (0,)
