"""Optional packages, imported when they are needed and never before."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from lucency.config_faults import shown
from lucency.errors import MissingExtra, ModelError


def import_extra(module: str, *, extra: str, needed_by: str) -> Any:
    """The module, of a package that `pip install 'lucency[extra]'` brings.

    Raises MissingExtra if the package is absent, ModelError with the cause if it is there but
    cannot be imported: a torchvision that was built for another torch fails with "operator
    torchvision::nms does not exist", an error that is no ImportError.
    """
    package = module.split(".")[0]
    try:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(needed_by, extra)
        return importlib.import_module(module)
    except MissingExtra:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingExtra(needed_by, extra) from error
        raise ModelError(
            f"{needed_by} needs {package}, which is installed but cannot be imported "
            f"({shown(str(error), 200)}); install builds of torch and torchvision that belong "
            "together, from one index."
        ) from error
