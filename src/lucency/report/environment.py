"""How reports become HTML: templates with autoescape, every printed string made plain."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lucency.report import numbers
from lucency.report.text import plain

PROSE_LENGTH = 1_200
BLOCK_LENGTH = 20_000

_BEFORE_PERCENT = re.compile(r"(?<=\d) (?=%)")


def environment() -> Environment:
    """Return the environment of all reports; what is undefined, or None, cannot be printed."""
    made = Environment(
        loader=PackageLoader("lucency.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "prose": _prose,
        "block": lambda text: escape(plain(text, BLOCK_LENGTH, lines=True)),
        "data_uri": _data_uri,
        "estimate": numbers.estimate,
        "rate": numbers.rate,
        "share": numbers.share,
        "percent": numbers.percent,
        "signed": numbers.signed,
        "difference": numbers.difference,
        "count": numbers.count,
        "amount": numbers.amount,
        "box": numbers.box,
        "p_number": numbers.p_number,
        "score": numbers.score,
        "sd": numbers.deviations,
    }
    made.globals |= {"interval": numbers.interval, "p_value": numbers.p_value}
    return made


def _shown(value: object) -> object:
    """Make every printed string plain; nothing undefined may reach the page without a reason."""
    if value is None:
        raise ValueError("None reached the page; say why it is not defined")
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prose(text: str) -> Markup:
    """Print a sentence; a number never parts from its per cent sign."""
    return escape(_BEFORE_PERCENT.sub("\N{NO-BREAK SPACE}", plain(text, PROSE_LENGTH)))


def _data_uri(uri: str) -> Markup:
    """Let a picture that was drawn here pass uncut; base64 holds nothing to escape."""
    return escape(uri)
