"""A page from disk in a real headless Chromium that has no network: what it asks for, says and overflows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Seen:
    """What a browser saw of a page.

    Attributes:
        requests: addresses that it asked for beside the page itself and what the page holds.
        errors: console errors and uncaught exceptions.
        widths: viewport -> how wide the page is in it, CSS pixels.
        text: all that can be read.
        broken: pictures that were not shown.
    """

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    widths: dict[int, int] = field(default_factory=dict)
    text: str = ""
    broken: int = 0


def executable() -> str:
    """Path of a Chromium."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or _absent(f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")


def axe_source() -> str:
    """The script of axe-core, which finds what keeps people from reading or using a page."""
    found = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
    return found.read_text(encoding="utf-8") if found.is_file() else _absent(f"no {found} (npm install --prefix tests)")


def _absent(why: str) -> NoReturn:
    """In CI all is installed, and its absence is a fault; elsewhere the test is skipped."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    raise AssertionError


def look(page_path: Path, widths: Sequence[int] = (400, 1200), shots: Path | None = None) -> Seen:
    """Opens a page from disk at several widths.

    Args:
        page_path: the HTML file.
        widths: of the viewport, CSS pixels.
        shots: folder for a whole-page screenshot of each width, WIDTH.png.
    """
    from playwright.sync_api import sync_playwright

    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        context = browser.new_context(offline=True)
        tab = context.new_page()
        address = page_path.resolve().as_uri()
        tab.on("request", lambda r: None if r.url.startswith(("data:", address)) else seen.requests.append(r.url))
        tab.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: seen.errors.append(str(error)))
        for width in widths:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(address, wait_until="load")
            seen.widths[width] = tab.evaluate("document.documentElement.scrollWidth")
            if shots is not None:
                tab.screenshot(path=str(shots / f"{width}.png"), full_page=True)
        seen.text = tab.inner_text("body")
        seen.broken = tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        browser.close()
    return seen


def check_page(path: Path, width: int = 400) -> None:
    """Fails when a page asks for anything but itself, writes an error to the console, lacks a picture, or is wider."""
    seen = look(path, (width,))
    assert seen.requests == [] and seen.errors == [] and seen.broken == 0
    assert seen.widths[width] <= width
