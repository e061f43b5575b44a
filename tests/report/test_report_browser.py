"""The page in a real browser: no request, no script, and nothing wider than the window."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run
from payloads import PAYLOADS

from lucency.report.page import render_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"chromium does not start: {error}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordinary")
    make_run(folder, n_cases=3)
    (folder / "report.html").write_text(render_run(folder), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    turn = itertools.cycle(PAYLOADS)
    seen: dict[str, str] = {}
    make_run(
        folder, n_findings=14, n_images=60, n_cases=6, side=64,
        text=lambda s: seen.setdefault(s, next(turn) + s),
    )  # fmt: skip
    (folder / "report.html").write_text(render_run(folder), encoding="utf-8")
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("kind", ["ordinary", "hostile"])
def test_quiet_and_within_the_window(
    browser: Any, request: pytest.FixtureRequest, kind: str, width: int
) -> None:
    path = request.getfixturevalue(kind)
    page = browser.new_page(viewport={"width": width, "height": 900})
    requests: list[str] = []
    dialogs: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda r: requests.append(r.url))
    page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    page.on("console", lambda m: complaints.append(m.text))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert dialogs == []
    assert complaints == []
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    wide = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll')
        && !e.closest('nav') && e.getBoundingClientRect().right > innerWidth + 1).map(
        e => e.tagName + '.' + e.className)"""
    assert page.evaluate(wide) == []
    page.close()
