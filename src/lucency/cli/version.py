"""`lucency version`."""

from __future__ import annotations

from importlib import metadata

from lucency.cli.answers import answer
from lucency.cli.options import Json


def version(as_json: Json = False) -> None:
    """Print the version."""
    number = metadata.version("lucency")
    answer({"version": number}, number, as_json)
