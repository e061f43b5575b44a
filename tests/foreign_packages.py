"""torchvision for tests: its wheel may lack its operators, which no classifier needs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_KEPT: list[torch.library.Library] = []
"""A library's operators go when it does."""


def torchvision_or_skip() -> Any:
    """The package torchvision, with the operators defined that its import asks for; else skip."""
    for attempt in (1, 2):
        try:
            return importlib.import_module("torchvision")
        except ModuleNotFoundError:
            pytest.skip("torchvision is not installed")
        except RuntimeError as error:
            if "torchvision::" not in str(error) or attempt == 2:
                pytest.skip(f"torchvision cannot be imported: {error}")
            _define_operators()
    return None


def _define_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT.append(library)
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
