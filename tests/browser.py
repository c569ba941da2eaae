"""A headless Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@contextmanager
def page(width: int, **options: Any) -> Iterator[Any]:
    """A page `width` px wide, and on it as `problems` what it complained of and as `requests` what it asked for.

    Skips where there is no Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS, timeout=120_000)
        opened = browser.new_page(viewport={"width": width, "height": 900}, **options)
        opened.set_default_timeout(120_000)
        opened.problems, opened.requests = [], []
        opened.on("console", lambda message: opened.problems.append(message.text))
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.on("request", lambda request: opened.requests.append(request.url))
        try:
            yield opened
        finally:
            browser.close()
