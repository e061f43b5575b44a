"""The toolkits of explanations that Lucency is compared with, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from lucency.victims.extras import import_extra

NEEDED_BY = "The benchmark of explanations"
EXTRA = "peers"
_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_KEPT: list[torch.library.Library] = []
"""A library's operators go when it does."""


def captum() -> Any:
    """`captum.attr`. Raises MissingExtra."""
    return import_extra("captum.attr", extra=EXTRA, needed_by=NEEDED_BY)


def grad_cam_toolkit() -> Any:
    """`pytorch_grad_cam`. Raises MissingExtra, or ModelError if it cannot be imported.

    It imports torchvision for its picture helpers. A torchvision whose compiled part was built for
    another torch fails while it describes two of its own operators, which no class activation map
    uses; so these are declared, without any code behind them, and the import is tried again.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        _declare_operators()
    return import_extra("pytorch_grad_cam", extra=EXTRA, needed_by=NEEDED_BY)


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    _KEPT.append(library)
