"""The page of a sweep in a real browser: no request, no script, nothing beyond the window."""

from typing import Any

import pytest

from browsing import browser, check_quiet_and_within
from tiny_sweep import TinySweep

__all__ = ["browser"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_quiet_and_within_the_window(browser: Any, tiny_sweep: TinySweep, width: int) -> None:
    check_quiet_and_within(browser, tiny_sweep.folder / "report.html", width)
