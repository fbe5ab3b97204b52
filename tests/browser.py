"""Loads pages in a headless Chromium without network, and reports their requests, errors, widths and texts."""

from __future__ import annotations

import itertools
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
class PageReport:
    """What a browser recorded of a page.

    Attributes:
        requests: requested addresses outside the page.
        errors: console errors and uncaught exceptions.
        widths: width of the viewport -> width of the page, in CSS pixels.
        text: visible text.
        broken: number of pictures that failed to load.
        violations: what axe-core finds, as (light or dark, width, rule, element).
    """

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    widths: dict[int, int] = field(default_factory=dict)
    text: str = ""
    broken: int = 0
    violations: list[tuple[str, int, str, str]] = field(default_factory=list)


def executable() -> str:
    """Returns the path of a Chromium."""
    path = next((path for name in NAMES if (path := shutil.which(name))), None)
    return path or _absent(f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")


def axe_source() -> str:
    """Returns the script of axe-core, which checks accessibility."""
    path = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text(encoding="utf-8") if path.is_file() else _absent(f"no {path} (npm install --prefix tests)")


def _absent(reason: str) -> NoReturn:
    """Fails the test in CI, where everything must be installed, and skips it elsewhere."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError


def load_page(page_path: Path, widths: Sequence[int] = (400, 1200), shots: Path | None = None) -> PageReport:
    """Loads a page from disk at several widths of the viewport, on a light and a dark screen.

    Args:
        page_path: the HTML file.
        widths: widths in CSS pixels.
        shots: folder for a screenshot of the whole page at each width, SCHEME_WIDTH.png.
    """
    from playwright.sync_api import sync_playwright

    report, axe = PageReport(), axe_source()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(ARGUMENTS))
        context = browser.new_context(offline=True)
        tab = context.new_page()
        address = page_path.resolve().as_uri()
        tab.on("request", lambda r: None if r.url.startswith(("data:", address)) else report.requests.append(r.url))
        tab.on("console", lambda message: report.errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: report.errors.append(str(error)))
        for scheme, width in itertools.product(("light", "dark"), widths):
            tab.emulate_media(color_scheme=scheme)
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(address, wait_until="load")
            report.widths[width] = max(
                report.widths.get(width, 0), tab.evaluate("document.documentElement.scrollWidth")
            )
            if shots is not None:
                tab.screenshot(path=str(shots / f"{scheme}_{width}.png"), full_page=True)
            tab.evaluate(axe)
            report.violations += [
                (scheme, width, violation["id"], node["html"])
                for violation in tab.evaluate("axe.run()")["violations"]
                for node in violation["nodes"]
            ]
        report.text = tab.inner_text("body")
        report.broken = tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        browser.close()
    return report


def check_page(path: Path, width: int = 400) -> None:
    """Fails if a page requests anything else, logs an error, lacks a picture, is too wide, or hard to use."""
    report = load_page(path, (width,))
    assert report.requests == [] and report.errors == [] and report.broken == 0
    assert report.widths[width] <= width
    assert report.violations == [], report.violations
