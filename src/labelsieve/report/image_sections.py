"""The sections of the report on what was found in images beside wrong labels."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from labelsieve.core.progress import Progress
from labelsieve.curation.findings import DATA_KINDS
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.report import common
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.verdicts import Verdicts

# Findings of each kind that are listed, the surest first, and characters for the thumbnails of all.
MAX_LISTED, BUDGET, SIDE = 24, 2_000_000, 96


def image_sections(verdicts: Verdicts, images: Labelled, *, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Returns `line`, `about`, `paired`, `more` and `rows` of each kind of finding about images that there is.

    Args:
        verdicts: What to report.
        images: What they were made from; only listed ones are opened.
        progress: Where to show how far it is.
    """
    sections = [
        {
            "line": line,
            "about": kind.about,
            "paired": kind.paired,
            "more": max(0, len(table) - MAX_LISTED),
            "rows": table.slice(0, MAX_LISTED).to_pylist(),
        }
        for kind, line, table in common.image_findings(verdicts)
    ]
    rows = [row for each in sections for row in each["rows"]]
    pictures = _pictures(verdicts, images, rows, progress)
    for row in rows:
        row["given"], row["thumbnail"] = pictures[row["id"]]
        # images that were compared with are not at hand; their ids may be the same as those of the data
        row["other_given"], row["other"] = pictures[row["other_id"]] if row["kind"] in DATA_KINDS else ("", Thumbnail())
    return sections


def _pictures(
    verdicts: Verdicts, images: Labelled, rows: list[dict[str, Any]], progress: Progress | None
) -> dict[str, tuple[str, Thumbnail]]:
    """Returns given label and thumbnail of each image of the data that is listed."""
    ids = {row["id"] for row in rows} | {row["other_id"] for row in rows if row["kind"] in DATA_KINDS}
    ordered = sorted(ids)
    indices = common.rows_of(verdicts, ordered)
    thumbnails = [Thumbnail()] * len(ordered)
    if isinstance(images, LabelledImages) and ordered:
        thumbnails = make_thumbnails(images, indices, side=SIDE, budget=BUDGET, progress=progress)
    given = pc.take(verdicts.table["given_label"], indices).to_pylist() if ordered else []
    return dict(zip(ordered, zip(given, thumbnails, strict=True), strict=True))
