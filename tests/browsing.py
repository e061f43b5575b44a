"""What every report must do in a real browser: ask for nothing, run nothing, fit the window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_WIDE = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll')
    && !e.closest('nav') && e.getBoundingClientRect().right > innerWidth + 1).map(
    e => e.tagName + '.' + e.className)"""
_CUT = r"""[...document.querySelectorAll('td, th, dd, dt, p, li')].flatMap(cell => {
    const cut = [], walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const text = walk.currentNode, range = document.createRange();
        for (const word of text.data.matchAll(/(?<!\S)[A-Za-z]{2,12}(?!\S)/g)) {
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            const tops = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
            if (tops.size > 1) cut.push(word[0]);
        }
    }
    return cut; })"""
"""Words of up to 12 letters that go over two lines: a column that is too narrow."""
_BROKEN = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"chromium does not start: {error}")
        yield browser
        browser.close()


def check_quiet_and_within(browser: Any, path: Path, width: int) -> None:
    """Fail unless the page is silent and no wider than `width` CSS pixels."""
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
    assert page.evaluate(_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not (cut := page.evaluate(_CUT)), cut
    assert page.evaluate(_BROKEN) == 0
    page.close()
