"""A real browser for tests of pages; they are skipped where there is none, but for CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
"""A name that a page must show as it is."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts Chromium for the time of a block."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and "CI" in os.environ:
        pytest.fail("the tests of pages need chromium, and none is installed")
    if found is None:
        pytest.skip("no chromium is installed")
    if "CI" not in os.environ:
        pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield started
        started.close()


def watch(page: Page, problems: list[str], *, milliseconds: int) -> None:
    """Writes down all that goes wrong in a page, which is to wait for nothing longer than so many milliseconds."""
    page.set_default_timeout(milliseconds)
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("dialog", lambda dialog: dialog.dismiss())
