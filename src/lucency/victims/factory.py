"""A network that the user's own code builds: architecture = "package.module:factory".

This imports the module that the card names and calls the function: it RUNS THAT CODE, with all the
rights of the user. A card of this kind is as trustworthy as the code it names, and is loaded only
where the user says so (`run_code`): `http.server:test` needs no argument either.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lucency.config_faults import shown
from lucency.errors import ModelError

_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
ARGUMENTS = ("channels", "n_findings")


def is_factory(architecture: str) -> bool:
    """Whether a card's architecture reads "package.module:factory"."""
    return _PLACE.fullmatch(architecture) is not None


def build_by_factory(architecture: str, channels: int, n_outputs: int) -> nn.Module:
    """Import the module, call the factory, and return its network.

    A factory with two required arguments gets (channels, n_outputs); one with none gets those of
    `channels` and `n_findings` that it has by name. Raises ModelError for a module, a function or a
    result that is not what it should be, and for whatever the factory raises.
    """
    place, name = architecture.split(":")
    factory = _find(place, name, architecture)
    arguments, keywords = _call_with(factory, architecture, channels, n_outputs)
    with torch.random.fork_rng(devices=[]):
        try:
            network = factory(*arguments, **keywords)
        except Exception as error:
            raise ModelError(
                f"{architecture} must return a network, but raised {type(error).__name__}: "
                f"{shown(str(error), 200)}."
            ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{architecture} must return a torch.nn.Module, got {type(network).__name__}."
        )
    return network


def _find(place: str, name: str, architecture: str) -> Callable[..., Any]:
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise ModelError(
            f"{architecture} must name a module that Python can import, but {place} gives "
            f"{type(error).__name__}: {shown(str(error), 200)}; install it, or put its folder on "
            "PYTHONPATH."
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ModelError(
            f"{architecture} must name a function that returns a network; {place} has "
            f"{'no ' + name if factory is None else f'{name}, a {type(factory).__name__}'}."
        )
    found: Callable[..., Any] = factory
    return found


def _call_with(
    factory: Callable[..., Any], architecture: str, channels: int, n_outputs: int
) -> tuple[tuple[int, ...], dict[str, int]]:
    values = dict(zip(ARGUMENTS, (channels, n_outputs), strict=True))
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        raise ModelError(f"{architecture} must be a Python function or class ({error}).") from error
    is_needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not is_needed:
        return (), {p.name: values[p.name] for p in parameters if p.name in values}
    if {p.name for p in is_needed} == set(ARGUMENTS):
        return (), values
    if len(is_needed) == 2 and all(p.kind != p.KEYWORD_ONLY for p in is_needed):
        return (channels, n_outputs), {}
    raise ModelError(
        f"{architecture} must be callable with no argument or with (channels, n_findings), but "
        f"needs ({', '.join(p.name for p in is_needed)}); write a function that does."
    )
