"""The sections of the report, in their order, and the data of each.

A new panel is a template `templates/panels/NAME.html.jinja`, a `<section>` with the name as its id, and one line in
`PANELS`, with a function here that returns the data of the template, under names that no other panel has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.registry import Entry, Registry
from labelsieve.curation.findings import DATA_KINDS, rows_of
from labelsieve.data.images import LabelledImages
from labelsieve.metrics import OTHER_METRICS
from labelsieve.report import texts
from labelsieve.report.figures import histogram
from labelsieve.report.pages import Page, unreadable_rows
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails

MAX_CLASS_ROWS = 300
# Image findings listed per kind, the most certain first, characters of all their thumbnails, and their side.
MAX_LISTED, BUDGET, SIDE = 24, 2_000_000, 96


def findings(page: Page) -> dict[str, Any] | None:
    """Returns the findings about the data set."""
    rows = texts.findings(page.verdicts.run)
    return {"findings": rows} if rows else None


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
    """Returns no data: the cards are data of the page, since the script uses them too."""
    return {}


def classes(page: Page) -> dict[str, Any]:
    """Returns a row for each class, those with the most flagged images first."""
    rows = sorted(page.classes, key=lambda row: (-row["flagged"], -row["images"], row["class_name"]))
    return {"classes": rows[:MAX_CLASS_ROWS], "more_classes": max(0, len(rows) - MAX_CLASS_ROWS)}


def annotators(page: Page) -> dict[str, Any] | None:
    """Returns a row for each annotator, if there are several."""
    run = page.verdicts.run
    rows = texts.annotators(run)
    if not rows:
        return None
    more = max(0, len(rows) - MAX_CLASS_ROWS)
    return {"annotators": rows[:MAX_CLASS_ROWS], "more_annotators": more, "consensus": texts.consensus(run)}


def image_findings(page: Page) -> dict[str, Any] | None:
    """Returns `line`, `about`, `paired`, `more` and `rows` of each kind of image finding: copies, leaks, defects ..."""
    sections = [
        {
            "line": line,
            "about": kind.about,
            "paired": bool(kind.other),
            "more": max(0, len(table) - MAX_LISTED),
            "rows": table.slice(0, MAX_LISTED).to_pylist(),
        }
        for kind, line, table in texts.image_findings(page.verdicts)
    ]
    rows = [row for each in sections for row in each["rows"]]
    pictures = _thumbnails_of(page, rows)
    for row in rows:
        row["given"], row["thumbnail"] = pictures[row["id"]]
        # images of the other split are not loaded; their ids may equal ids of the data
        row["other_given"], row["other"] = pictures[row["other_id"]] if row["kind"] in DATA_KINDS else ("", Thumbnail())
    return {"image_sections": sections} if sections else None


def _thumbnails_of(page: Page, rows: list[dict[str, Any]]) -> dict[str, tuple[str, Thumbnail]]:
    """Returns given label and thumbnail of each image of the data that is listed."""
    ids = {row["id"] for row in rows} | {row["other_id"] for row in rows if row["kind"] in DATA_KINDS}
    ordered = sorted(ids)
    indices = rows_of(pa.array(ordered, pa.string()), page.verdicts.table["id"]).tolist()
    thumbnails = [Thumbnail()] * len(ordered)
    if isinstance(page.images, LabelledImages) and ordered:
        thumbnails = make_thumbnails(page.images, indices, side=SIDE, budget=BUDGET, progress=page.progress)
    given = pc.take(page.verdicts.table["given_label"], indices).to_pylist() if ordered else []
    return dict(zip(ordered, zip(given, thumbnails, strict=True), strict=True))


def metrics(page: Page) -> dict[str, Any] | None:
    """Returns the metrics of the verdicts, if there is a truth."""
    return {"metrics": page.verdicts.metrics, "other_metrics": OTHER_METRICS} if page.verdicts.metrics else None


def unreadable(page: Page) -> dict[str, Any] | None:
    """Returns the images that could not be read, and why."""
    verdicts = page.verdicts
    table = verdicts.table.filter(~verdicts.is_readable)
    rows = unreadable_rows(table["id"], table["given_label"], table["error"])
    return {"unreadable": rows} if rows else None


_HERE = "labelsieve.report.panels:"
PANELS: Registry[Callable[[Page], dict[str, Any] | None], Entry] = Registry(
    "panel",
    Entry("findings", _HERE + "findings", "Findings"),
    Entry("overview", _HERE + "overview", "Overview"),
    Entry("images", _HERE + "images", "Images"),
    Entry("classes", _HERE + "classes", "Classes"),
    Entry("annotators", _HERE + "annotators", "Annotators"),
    Entry("image_findings", _HERE + "image_findings", "Other issues"),
    Entry("metrics", _HERE + "metrics", "Metrics"),
    Entry("unreadable", _HERE + "unreadable", "Unreadable"),
)
"""In the order of the page, with the texts of the links to them. A function that returns None omits its panel."""
