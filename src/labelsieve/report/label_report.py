"""The report: one HTML file that needs no network, no server and no other file.

Python writes every card and table into the page, so that it can be read and printed without JavaScript. The script adds
filters, marks and the enlarged view. All user data is escaped: by autoescaping in the page, by `tojson` in the data of
the script. The content security policy of the page only allows its own script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.files import write_text
from labelsieve.core.output_folders import check_report
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import check_value
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.report import MAX_IMAGES, ImageCount, ThumbnailPixels, texts
from labelsieve.report.pages import THUMBNAIL_BUDGET, Page, environment, file_link, page_context, shortest
from labelsieve.report.panels import PANELS
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.review.statement import Statement
from labelsieve.verdicts import Verdicts, require_same_images

# Images just above the threshold, shown beside the flagged ones so that a person can check the threshold.
NEAR_MISSES = 24

# Index and name of a class in a filter.
Choice = tuple[int, str]


def write_report(
    verdicts: Verdicts,
    images: Labelled,
    path: str | Path,
    *,
    max_images: int = MAX_IMAGES,
    thumbnail_px: int = 256,
    overwrite: bool = False,
    audit: Statement | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the report, one self-contained HTML file: about 5 kB per image on the page, below 40 MB by default.

    Args:
        verdicts: The verdicts.
        images: The images of the verdicts; only those of the gallery are opened. Precomputed features have no images:
            their cards show the ids.
        path: The file to write, atomically.
        max_images: Number of the most suspicious images in the gallery, 1 to 20,000.
        thumbnail_px: Longest side of the embedded images, 32 to 512.
        overwrite: Replace also a file that is no report of labelsieve.
        audit: Result of an audit, from :func:`labelsieve.review.audit.statement`; its sentences are at the top.
        progress: Receives progress.

    Returns:
        The path of the file.

    Raises:
        SettingsError: A setting is out of range.
        RunError: The images are not those of the verdicts, another file than a report exists at the path, or the file
            cannot be written.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels)
        >>> verdicts = ls.scan(features, detector=ls.KNN())
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ls.write_report(verdicts, features, f"{folder}/report.html").name
        'report.html'
    """
    check_value("max_images", max_images, ImageCount)
    check_value("thumbnail_px", thumbnail_px, ThumbnailPixels)
    require_same_images(verdicts.table, images)
    path = Path(path)
    check_report(path, overwrite=overwrite)
    page = environment().get_template("report.html.jinja")
    context = _context(verdicts, images, max_images, thumbnail_px, path, progress)
    sentences = audit.sentences if audit else ()
    write_text(path, page.render(context, audit=sentences, is_audited=bool(audit and audit.left)))
    return path


def _context(
    verdicts: Verdicts, images: Labelled, max_images: int, thumbnail_px: int, path: Path, progress: Progress | None
) -> dict[str, Any]:
    flagged, readable = int(verdicts.is_issue.sum()), int(verdicts.is_readable.sum())
    rows = gallery_rows(verdicts, max_images=max_images)
    flagged_on_page = int(verdicts.is_issue[rows].sum())
    thumbnails, files = [Thumbnail()] * len(rows), [""] * len(rows)
    if isinstance(images, LabelledImages):
        # more images enlarge the file instead of blurring thumbnails
        budget = THUMBNAIL_BUDGET * max(MAX_IMAGES, len(rows)) // MAX_IMAGES
        options: dict[str, Any] = {"side": thumbnail_px, "budget": budget, "progress": progress}
        thumbnails = make_thumbnails(images, rows, surroundings=True, **options)
        files = [file_link(images, row, path) for row in rows]
    cards = _cards(verdicts, images, rows, thumbnails)
    about = Page(verdicts=verdicts, images=images, rows=rows, progress=progress)
    panels = {name: values for name in PANELS if (values := PANELS[name](about)) is not None}
    context = {
        **page_context(verdicts, script="report.js", default_source="labelled images", facts=_facts(verdicts)),
        "panels": {name: PANELS.about(name) for name in panels},
        "unit": verdicts.unit,
        "readable": readable,
        "flagged": flagged,
        "shown": flagged_on_page,
        "near_misses": len(rows) - flagged_on_page,
        "more": texts.all_flagged(verdicts, shown=flagged_on_page),
        "estimate": texts.estimate(verdicts),
        "has_files": any(files),
        "has_images": bool(verdicts.run.model.name),  # features have none to write or to train on
        "corrected_suffix": texts.suffix_of_corrected(verdicts.run.origin),
        "cards": cards,
        "choices": _choices(verdicts, cards, _linked(about)),
        "data": _script_data(verdicts, images, cards, files),
    }
    for values in panels.values():
        context = dict(**context, **values)  # a TypeError if a name is taken
    return context


def _facts(verdicts: Verdicts) -> dict[str, str | None]:
    run = verdicts.run
    return {
        "Zero-shot model agrees": f"with {agreement}" if (agreement := texts.agreement(run)) else None,
        "Known from a review": texts.reviewed(run),
        "Test images": texts.tested(run),
        **run.rule.facts(),
    }


def gallery_rows(verdicts: Verdicts, *, max_images: int) -> list[int]:
    """Returns row numbers by rank: flagged images, then a few just above the threshold if `max_images` allows."""
    flagged = int(verdicts.is_issue.sum())
    size = min(max_images, flagged + NEAR_MISSES)
    rank = np.asarray(verdicts.table["rank"].fill_null(len(verdicts) + 1))
    order = np.argsort(rank, kind="stable")
    return [int(row) for row in order[:size] if verdicts.is_readable[row]]


def _cards(verdicts: Verdicts, images: Labelled, rows: list[int], thumbnails: list[Thumbnail]) -> list[dict[str, Any]]:
    boxed = images if isinstance(images, LabelledImages) and images.boxes is not None else None
    records = verdicts.table.take(rows).to_pylist() if rows else []
    return [
        {
            **record,
            "given": int(verdicts.given[row]),
            "suggested": int(verdicts.predicted[row]),
            "thumbnail": thumbnail,
            "image_name": "" if boxed is None else boxed.file_name(row),  # an image may have several boxes
        }
        for row, record, thumbnail in zip(rows, records, thumbnails, strict=True)
    ]


def _choices(
    verdicts: Verdicts, cards: list[dict[str, Any]], linked: Mapping[str, set[int]]
) -> dict[str, list[Choice]]:
    """Returns index and name for the two class filters: the classes of cards and linked classes. The script counts."""
    result = {}
    for side in ("given", "suggested"):
        indices = linked[side] | {card[side] for card in cards}
        entries = [(index, verdicts.class_names[index]) for index in indices]
        result[side] = sorted(entries, key=lambda entry: (entry[1].casefold(), entry[1]))
    return result


def _linked(page: Page) -> dict[str, set[int]]:
    """Returns the classes that figures link to."""
    pairs = [*page.confusions.pairs, *(pair for row in page.confusions.matrix for pair in row if pair.count)]
    return {
        "given": {row["index"] for row in page.bars[0]} | {pair.given for pair in pairs},
        "suggested": {pair.suggested for pair in pairs},
    }


def _script_data(verdicts: Verdicts, images: Labelled, cards: list[dict[str, Any]], files: list[str]) -> dict[str, Any]:
    """Returns the data of the script. Marks belong to images and given labels, so they survive a new report."""
    return {
        "key": verdicts.run.data.fingerprint or fingerprint(images.fingerprint),
        "names": verdicts.class_names,  # all classes, since any may be the right one
        "cards": [
            {
                "id": card["id"],
                "given": card["given"],
                "suggested": card["suggested"],
                "quality": shortest(card["label_quality"]),
                "rank": card["rank"],
                "size": card["thumbnail"].full_size,
                "flagged": card["is_label_issue"],
                **_box_data(card),
                **({"file": file} if file else {}),
            }
            for card, file in zip(cards, files, strict=True)
        ],
    }


def _box_data(card: dict[str, Any]) -> dict[str, Any]:
    """Returns the box, the crop and the name of its image; empty if there is no box."""
    small = card["thumbnail"]
    return {"box": small.box, "window": small.window, "image": card["image_name"]} if small.box else {}
