"""What was asked for on the command line, as findings and methods that exist."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lucency.data.tables import nearest
from lucency.errors import ConfigError
from lucency.explain.attribution import Explanation

ALL = "all"


def choose(asked: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """The known names that were asked for, in the order asked, each once; "all" of them.

    asked: names, or several with commas between. Raises ConfigError for a name that is unknown.
    """
    names = [n for text in asked for n in _split(text, known)]
    if not names:
        raise ConfigError(f"{what} must name one of {', '.join(known)}, or {ALL}, got nothing.")
    for name in names:
        if name != ALL and name not in known:
            raise ConfigError(
                f"{what} must be one of {', '.join(known)}, or {ALL}, got {name!r}"
                f"{nearest(name, known)}."
            )
    return tuple(known) if ALL in names else tuple(dict.fromkeys(names))


def with_layer(
    chosen: Sequence[str], table: Mapping[str, Explanation], layer: str | None
) -> dict[str, Explanation]:
    """The chosen methods, at that layer. Raises ConfigError if none of them is of a layer."""
    methods = {name: table[name] for name in chosen}
    if layer is None:
        return methods
    of_layer = [name for name, method in table.items() if _takes_layer(method)]
    if not set(of_layer) & set(methods):
        raise ConfigError(
            f"--layer is for {', '.join(of_layer)}, got it with {', '.join(methods)}; leave it out."
        )
    return {
        name: _at(method, layer) if name in of_layer else method for name, method in methods.items()
    }


def _split(text: str, known: Sequence[str]) -> list[str]:
    """A name that has a comma itself is a name first."""
    if text in known:
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _takes_layer(method: Explanation) -> bool:
    return "layer" in inspect.signature(method).parameters


def _at(method: Any, layer: str) -> Explanation:
    return partial(method, layer=layer)
