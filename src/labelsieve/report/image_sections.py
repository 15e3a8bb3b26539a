"""The sections of the report on image findings: copies, leaks, images of no class and defects."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.progress import Progress
from labelsieve.curation.findings import DATA_KINDS, rows_of
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.report import common
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.verdicts import Verdicts

# Findings listed per kind, the most certain first, characters of all thumbnails, and their side.
MAX_LISTED, BUDGET, SIDE = 24, 2_000_000, 96


def image_sections(verdicts: Verdicts, images: Labelled, *, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Returns `line`, `about`, `paired`, `more` and `rows` of each kind of image finding in the run.

    Args:
        verdicts: The verdicts.
        images: Their images; only listed images are opened.
        progress: Receives progress.
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
    pictures = _thumbnails_of(verdicts, images, rows, progress)
    for row in rows:
        row["given"], row["thumbnail"] = pictures[row["id"]]
        # images of the other split are not loaded; their ids may equal ids of the data
        row["other_given"], row["other"] = pictures[row["other_id"]] if row["kind"] in DATA_KINDS else ("", Thumbnail())
    return sections


def _thumbnails_of(
    verdicts: Verdicts, images: Labelled, rows: list[dict[str, Any]], progress: Progress | None
) -> dict[str, tuple[str, Thumbnail]]:
    """Returns given label and thumbnail of each image of the data that is listed."""
    ids = {row["id"] for row in rows} | {row["other_id"] for row in rows if row["kind"] in DATA_KINDS}
    ordered = sorted(ids)
    indices = rows_of(pa.array(ordered, pa.string()), verdicts.table["id"]).tolist()
    thumbnails = [Thumbnail()] * len(ordered)
    if isinstance(images, LabelledImages) and ordered:
        thumbnails = make_thumbnails(images, indices, side=SIDE, budget=BUDGET, progress=progress)
    given = pc.take(verdicts.table["given_label"], indices).to_pylist() if ordered else []
    return dict(zip(ordered, zip(given, thumbnails, strict=True), strict=True))
