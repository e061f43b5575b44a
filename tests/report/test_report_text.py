"""Free text and numbers: nothing hidden, nothing rounded to certainty."""

from __future__ import annotations

import doctest
import unicodedata

import pytest
from payloads import PAYLOADS

from lucency.records import Estimate, Rate
from lucency.report import numbers, text
from lucency.report.text import plain


@pytest.mark.parametrize("module", [text, numbers])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_sixty_payloads() -> None:
    assert len(set(PAYLOADS)) == 60


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_stays_hidden(payload: str) -> None:
    shown = plain(payload)
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn"} for c in shown)
    assert len(shown) <= 10 * text.MAX_LENGTH + 40


def test_lines_are_kept_on_demand() -> None:
    assert plain("a\r\n\tb\x07", lines=True) == "a\n    b\\x07"
    assert plain("a\nb") == "a\\x0ab"


def test_ordinary_text_is_untouched() -> None:
    for name in ("Pleural_Thickening", "Épanchement – 5 µm", "肺炎", "naïve é"):
        assert plain(name) == name


def test_marks_do_not_pile_up() -> None:
    shown = plain("a" + "\u0301" * 30)
    assert shown.count("\u0301") == text.MAX_MARKS
    assert "\\u0301" in shown


def test_undefined_says_why() -> None:
    assert numbers.estimate(Estimate(value=None, reason="one class")) == "not defined: one class"
    assert numbers.rate(Rate(successes=0, trials=0, value=None)).startswith(
        "not defined: no reason"
    )


def test_no_share_is_rounded_to_certainty() -> None:
    for value in (0.9999, 0.99951, 0.996, 0.004, 0.0001):
        assert numbers.share(value) not in {"0.00", "1.00", "0.000", "1.000"}
        assert numbers.share(value, 3) not in {"0.000", "1.000"}
    assert numbers.share(0.0) == "0.00"
    assert numbers.share(1.0, 3) == "1.000"


def test_p_value_stands_beside_the_smallest() -> None:
    assert numbers.p_value(0.0417, 0.01) == "p = 0.042; smallest possible 0.010"
