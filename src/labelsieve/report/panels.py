"""The sections of the report, in their order: what each shows, and the table of them.

A new panel is a template `templates/panels/NAME.html.jinja`, a `<section>` with the name as its id, and one line in
`PANELS`, with a function here that returns what the template shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labelsieve.core.progress import Progress
from labelsieve.core.registry import Entry, Registry
from labelsieve.data.labelled import Labelled
from labelsieve.metrics import OTHER_METRICS
from labelsieve.report import common
from labelsieve.report.figures import Confusions, class_bars, confusions, histogram
from labelsieve.report.image_sections import image_sections
from labelsieve.verdicts import Verdicts

MAX_CLASS_ROWS = 300
MAX_UNREADABLE = 200
_MAX_REASON = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """What the sections of a report speak of.

    Attributes:
        verdicts: Of N images.
        images: What they were made from.
        rows: Row numbers of the images that the page shows.
        progress: Where to show how far it is.
    """

    verdicts: Verdicts
    images: Labelled
    rows: list[int]
    progress: Progress | None = None

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """Returns what :meth:`Verdicts.per_class` does, each with `index`, and `here`: how many the page shows."""
        verdicts = self.verdicts
        shown = verdicts.given[self.rows][verdicts.is_issue[self.rows]]
        here = np.bincount(shown, minlength=len(verdicts.class_names))
        return [{"index": index, "here": int(here[index]), **row} for index, row in enumerate(verdicts.per_class())]

    @cached_property
    def bars(self) -> tuple[list[dict[str, Any]], int]:
        """See :func:`labelsieve.report.figures.class_bars`."""
        return class_bars(self.classes)

    @cached_property
    def confusions(self) -> Confusions:
        """What the flagged images of the page are suggested to be."""
        return confusions(self.verdicts, self.rows)


def findings(page: Page) -> dict[str, Any] | None:
    """Returns what to know first."""
    found = common.findings(page.verdicts.run)
    return {"findings": found} if found else None


def overview(page: Page) -> dict[str, Any]:
    """Returns the numbers behind the figures."""
    bars, more_bars = page.bars
    return {
        "histogram": histogram(page.verdicts),
        "confusions": page.confusions,
        "bars": bars,
        "more_bars": more_bars,
    }


def images(_page: Page) -> dict[str, Any]:
    """Returns nothing: the cards belong to the script, too, and are those of the whole page."""
    return {}


def classes(page: Page) -> dict[str, Any]:
    """Returns a row for each class, those with most flagged images first."""
    rows = sorted(page.classes, key=lambda row: (-row["flagged"], -row["images"], row["class_name"]))
    return {"classes": rows[:MAX_CLASS_ROWS], "more_classes": max(0, len(rows) - MAX_CLASS_ROWS)}


def annotators(page: Page) -> dict[str, Any] | None:
    """Returns a row for each annotator, where there are several."""
    run = page.verdicts.run
    rows = common.annotators(run)[:MAX_CLASS_ROWS]
    return {"annotators": rows, "consensus": common.consensus(run)} if rows else None


def beside(page: Page) -> dict[str, Any] | None:
    """Returns what was found in images beside wrong labels."""
    sections = image_sections(page.verdicts, page.images, progress=page.progress)
    return {"image_sections": sections} if sections else None


def metrics(page: Page) -> dict[str, Any] | None:
    """Returns how good the verdicts are, where the truth is known."""
    return {"metrics": page.verdicts.metrics, "other_metrics": OTHER_METRICS} if page.verdicts.metrics else None


def unreadable(page: Page) -> dict[str, Any] | None:
    """Returns the images that could not be read, and why."""
    verdicts = page.verdicts
    rows = np.flatnonzero(~verdicts.is_readable)[:MAX_UNREADABLE]
    records = verdicts.table.select(["id", "given_label", "error"]).take(rows).to_pylist()
    shown = [{**row, "error": row["error"].removeprefix(f"{row['id']}: ")[:_MAX_REASON]} for row in records]
    return {"unreadable": shown} if shown else None


_HERE = "labelsieve.report.panels:"
PANELS: Registry[Callable[[Page], dict[str, Any] | None], Entry] = Registry(
    "panel",
    Entry("findings", _HERE + "findings", "Findings"),
    Entry("overview", _HERE + "overview", "Overview"),
    Entry("images", _HERE + "images", "Images"),
    Entry("classes", _HERE + "classes", "Classes"),
    Entry("annotators", _HERE + "annotators", "Annotators"),
    Entry("beside", _HERE + "beside", "Beside labels"),
    Entry("metrics", _HERE + "metrics", "Metrics"),
    Entry("unreadable", _HERE + "unreadable", "Unreadable"),
)
"""In the order of the page, with the words of the links to them. A function that returns None leaves its panel out."""
