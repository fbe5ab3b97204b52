"""Opens a page in a real browser, which must not ask for anything, complain, or scroll sideways."""

import shutil
from pathlib import Path

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def check_page(path: Path, width: int = 400) -> None:
    """Fails when the page at `path` asks for anything but itself, writes to the console, or is wider than `width`."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.resolve().as_uri(), wait_until="load")
        wide = page.evaluate("document.documentElement.scrollWidth")
        broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)")
        small = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 10)"
            ".map(e => e.tagName)"
        )
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [path.resolve().as_uri()], asked
    assert said == [] and broken == [] and small == []
    assert wide <= width
