"""Fixtures that every folder of tests shares."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cxr_data() -> Path:
    """The folder of real chest X-rays, which is not part of this repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real chest X-rays: set CXR_DATA to their folder")
    return folder
