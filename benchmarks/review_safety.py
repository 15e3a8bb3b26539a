"""No answer of a review is lost and none counts twice: kill -9 at random moments, and two browsers at once.

    python benchmarks/review_safety.py --kills 20 --answers 2000

Kills the server, then the browser, at random moments while answers are given, and compares what was acknowledged (the
next card was shown) with the log. Then two browsers answer together until so many images are done.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from labelsieve.review import AnswerLog
from review_keys import _address, make_run

_NEXT = "#end:not([hidden]), #about .id:not([title='{}'])"


def started(run: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts the command and returns it with its address."""
    words = [sys.executable, "-m", "labelsieve", "review", str(run), "--no-browser", "--no-audit"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    return process, _address(process)


def opened(playwright: Any, address: str) -> Any:
    """Opens the page in a browser of its own."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#top li")
    return page


def answer(page: Any) -> str:
    """Answers the card and returns its id once the next one is shown, which is the acknowledgement."""
    name = str(page.locator("#about .id").text_content())
    page.keyboard.press("g")
    page.wait_for_selector(_NEXT.format(name), timeout=5000)
    return name


def killed(playwright: Any, run: Path, *, server: bool) -> list[str]:
    """Answers until a random moment at which server or browser is killed; returns what was acknowledged."""
    process, address = started(run)
    page = opened(playwright, address)
    ends, names = time.monotonic() + random.uniform(0.2, 2.5), []
    while time.monotonic() < ends:
        names.append(answer(page))
    page.keyboard.press("g")  # on its way, and not acknowledged
    if server:
        os.kill(process.pid, signal.SIGKILL)
        page.context.browser.close()
    else:
        _crash(page)
        process.terminate()
    process.communicate()
    return names


def _crash(page: Any) -> None:
    """Ends the browser at once; it has no time to say so to the page."""
    from contextlib import suppress

    with suppress(Exception):  # it does not live to reply
        page.context.browser.new_browser_cdp_session().send("Browser.crash")


def together(playwright: Any, run: Path, answers: int) -> int:
    """Two browsers answer in turns; returns how many answers were acknowledged."""
    process, address = started(run)
    pages, done = [opened(playwright, f"{address}&reviewer={name}") for name in ("ann", "bob")], 0
    while done < answers:
        for page in pages:
            answer(page)
            done += 1
    for page in pages:
        page.context.browser.close()
    process.terminate()
    process.communicate()
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        os.environ["LABELSIEVE_CACHE"] = str(Path(name) / "cache")
        run, names = make_run(Path(name), options.images), []
        for number in range(options.kills):
            names += killed(playwright, run, server=number % 2 == 0)
        before = Counter(each.id for each in AnswerLog(run).answers())
        lost, twice = set(names) - set(before), [each for each, count in before.items() if count > 1]
        print(f"{options.kills} kills: {len(names)} answers acknowledged, {len(lost)} lost, {len(twice)} twice")
        done = together(playwright, run, options.answers)
        after = Counter(each.id for each in AnswerLog(run).answers()) - before
        repeated = [each for each, count in after.items() if count > 1]
        print(f"two browsers: {done} answers acknowledged, {after.total()} kept, {len(repeated)} twice")


if __name__ == "__main__":
    main()
