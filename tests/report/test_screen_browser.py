"""The page of a screening in a real browser: no request, no script, nothing beyond the window."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from make_screen import make_screen
from payloads import PAYLOADS

from browsing import browser, check_quiet_and_within
from lucency.report.screen_page import render_screen

__all__ = ["browser"]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordinary")
    make_screen(folder, n_cases=4)
    (folder / "report.html").write_text(render_screen(folder), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    turn = itertools.cycle(PAYLOADS)
    seen: dict[str, str] = {}
    make_screen(
        folder, n_images=60, n_cases=6, side=64,
        text=lambda s: seen.setdefault(s, next(turn) + s),
    )  # fmt: skip
    (folder / "report.html").write_text(render_screen(folder), encoding="utf-8")
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("kind", ["ordinary", "hostile"])
def test_quiet_and_within_the_window(
    browser: Any, request: pytest.FixtureRequest, kind: str, width: int
) -> None:
    check_quiet_and_within(browser, request.getfixturevalue(kind), width)
