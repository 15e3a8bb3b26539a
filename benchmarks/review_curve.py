"""How right labels become by a review: a scripted reviewer who knows the truth answers on the page, in Chromium.

    labelsieve noise photos.parquet --kind symmetric --rate 0.25 --out noise.parquet
    labelsieve scan photos.parquet --noise noise.parquet --detector joint --out runs/joint
    labelsieve scan photos.parquet --noise noise.parquet --detector confident-learning --out runs/cleanlab
    python benchmarks/review_curve.py runs/joint --beside runs/cleanlab --answers 300 600 900 --plot curve.svg

Prints the accuracy of the labels after so many answers: by the queue of `labelsieve review`, by the ranking of the
other run, and in random order, for which the expected value is exact. And how many keys the answers took. The plot has
a point for every answer; it needs matplotlib. Both runs have to know the truth. The cache has to be the one that the
scans used, for the top classes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from labelsieve.app.session import Session
from labelsieve.commands.run_data import images_of
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.review import AnswerLog
from labelsieve.verdicts import Verdicts


class Reviewer:
    """Answers the truth with as few keys as the page allows."""

    def __init__(self, page: Any, images: LabelledImages) -> None:
        self.page, self.keys = page, 0
        assert images.truth is not None
        self.truth = {name: images.class_names[label] for name, label in zip(images.ids, images.truth, strict=True)}

    def answer(self) -> bool:
        """Answers one card; false at the end of the queue."""
        name = self.page.locator("#about .id").inner_text()
        right, said = self.truth[name], self._texts(".facts .name")
        top = self._texts("#top .choice .name")
        if len(said) > 1 and said[1] == right:
            self._press("Enter")
        elif said[0] == right:
            self._press("g")
        elif right in top:
            self._press(str(top.index(right) + 1))
        else:
            self._press("/", *right, "Enter")
        self.page.wait_for_selector(f"#end:not([hidden]), #about .id:not([title='{name}'])")
        return bool(self.page.locator("#end").is_hidden())

    def _texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_text_contents()]

    def _press(self, *keys: str) -> None:
        self.keys += len(keys)
        for key in keys:
            self.page.keyboard.press(key)


def reviewed(run: Path, images: LabelledImages, answers: int, *, audit: bool) -> tuple[int, dict[str, str]]:
    """Reviews a run in Chromium; returns the keys that were pressed, and the labels that were answered, in order."""
    from playwright.sync_api import sync_playwright

    from labelsieve.app.serving import free_socket

    session = Session(Verdicts.load(run), images, run, audit=audit)
    if session.log.answers():
        raise SystemExit(f"{session.log.path} has answers; remove it, or copy the run")
    with free_socket() as listening, _served(session, listening), sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/?token=token")
        page.locator("#filter-button").click()
        page.locator("#filters [name=which]").select_option("all")
        page.locator("#filter-button").click()
        page.wait_for_selector("#top li")
        page.wait_for_timeout(500)
        reviewer = Reviewer(page, images)
        for _ in range(answers):
            if not reviewer.answer():
                break
        browser.close()
    return reviewer.keys, {each.id: each.labels[0] for each in AnswerLog(run).answers()}


def _served(session: Session, listening: Any) -> Any:
    """Serves a session in a thread for the time of a block."""
    import threading
    from contextlib import contextmanager

    import uvicorn

    from labelsieve.app.rescan import Rescan
    from labelsieve.app.server import make_app

    @contextmanager
    def running() -> Any:
        rescan = Rescan(session, plan_of=lambda *_: {}, command=(), say=print)
        app = make_app(rescan, token="token", reviewer="script")
        config = uvicorn.Config(app, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield
        server.should_exit = True
        thread.join()

    return running()


def accuracies(images: LabelledImages, rows: NDArray[np.int64], answers: list[int]) -> list[float]:
    """Returns how many labels are right once those of the first rows are, for each number of answers."""
    assert images.truth is not None
    wrong = images.truth != images.labels
    return [float(1 - (wrong.sum() - wrong[rows[:count]].sum()) / len(wrong)) for count in answers]


def plot(lines: dict[str, list[float]], path: Path) -> None:
    """Draws the accuracies after 0, 1, 2, ... answers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, values in lines.items():
        axes.plot(range(len(values)), [100 * value for value in values], label=name)
    axes.set_xlabel("answers")
    axes.set_ylabel("right labels, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--beside", type=Path, help="a run of the same data by another detector")
    parser.add_argument("--answers", type=int, nargs="+", default=[300, 600, 900])
    parser.add_argument("--audit", action="store_true", help="one card in five at random, as the command has it")
    parser.add_argument("--plot", type=Path, help="where to write the curve, an SVG file")
    options = parser.parse_args()
    verdicts = Verdicts.load(options.run)
    images = images_of(verdicts, progress=Progress(Console()))
    if images.truth is None:
        raise SystemExit("the run knows no truth; scan with --noise or --truth-column")
    keys, labels = reviewed(options.run, images, max(options.answers), audit=options.audit)
    place = {name: row for row, name in enumerate(images.ids)}
    rows = np.array([place[name] for name in labels])
    random, every = np.mean(images.truth != images.labels), list(range(max(options.answers) + 1))
    curves = {
        "labelsieve review": accuracies(images, rows, every),
        "in random order": [float(1 - random * (1 - min(n / len(images), 1))) for n in every],
    }
    if options.beside:
        rank = Verdicts.load(options.beside).table["rank"].fill_null(len(images) + 1).to_numpy()
        curves[f"ranking of {options.beside.name}"] = accuracies(images, np.argsort(rank), every)
    print(f"{len(labels)} answers took {keys} keys; labels right at the start: {1 - random:.1%}")
    print("answers".ljust(28), *(f"{n:>8}" for n in options.answers))
    for name, values in curves.items():
        print(name.ljust(28), *(f"{values[n]:8.1%}" for n in options.answers))
    if options.plot:
        plot(curves, options.plot)


if __name__ == "__main__":
    main()
