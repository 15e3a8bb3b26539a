"""The report on tags: one HTML file that needs no network, no server and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.files import write_text
from labelsieve.core.output_folders import check_report
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import check_value
from labelsieve.data.tags.records import TaggedImages
from labelsieve.report import ImageCount, ThumbnailPixels, texts
from labelsieve.report.pages import THUMBNAIL_BUDGET, environment, file_link, page_context, shortest, unreadable_rows
from labelsieve.report.panels import MAX_CLASS_ROWS
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.tags.verdicts import MEASURES, MISSING, TAG_KINDS, WRONG, TagVerdicts
from labelsieve.verdicts import require_same_images

MAX_TAG_PAIRS = 500
"""Default number of pairs of each kind in the report."""
_TITLES = {WRONG: "Tags that look wrong", MISSING: "Tags that look missing"}
_LEADS = {
    WRONG: "The class is among the given tags, and the model does not find it in the image.",
    MISSING: "The class is not among the given tags, and the model finds it in the image.",
}
# Maximum number of tags on a card.
_TAGS = 12


def write_tag_report(
    verdicts: TagVerdicts,
    images: TaggedImages,
    path: str | Path,
    *,
    max_images: int = MAX_TAG_PAIRS,
    thumbnail_px: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes the report, one self-contained HTML file.

    Args:
        verdicts: The verdicts.
        images: The images of the verdicts; only those of the page are opened.
        path: The file to write, atomically.
        max_images: Number of the most suspicious pairs of each kind to show, 1 to 20,000.
        thumbnail_px: Longest side of the embedded images, 32 to 512.
        overwrite: Replace also a file that is no report of labelsieve.
        progress: Receives progress.

    Returns:
        The path of the file.

    Raises:
        SettingsError: A setting is out of range.
        RunError: The images are not those of the verdicts, another file than a report exists at the path, or the file
            cannot be written.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> from labelsieve.detect.tags.joint import TagJoint
        >>> drawn, labels = sketches(32, seed=0)
        >>> tags = [[] if row == 3 else [CLASS_NAMES[label]] for row, label in enumerate(labels)]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP), detector=TagJoint(windows=1))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ls.write_tag_report(verdicts, images, f"{folder}/report.html").name
        'report.html'
    """
    check_value("max_images", max_images, ImageCount)
    check_value("thumbnail_px", thumbnail_px, ThumbnailPixels)
    require_same_images(verdicts.images, images)
    path = Path(path)
    check_report(path, overwrite=overwrite)
    chosen = {kind: verdicts.of_kind(kind)[:max_images] for kind in TAG_KINDS}
    small = _thumbnails(verdicts, images, chosen, thumbnail_px, progress)
    page = environment().get_template("tags.html.jinja")
    files = {row: file_link(images, row, path) for row in small}
    sections = [_section(verdicts, kind, pairs, small, files) for kind, pairs in chosen.items()]
    # the order of the cards on the page
    cards = verdicts.table.take(np.concatenate([*chosen.values()])).drop_columns(["rank"]).to_pylist()
    script = {
        "key": verdicts.run.data.fingerprint or fingerprint(images.fingerprint),
        "cards": [{**card, "label_quality": shortest(card["label_quality"])} for card in cards],
    }
    write_text(path, page.render(_context(verdicts), sections=sections, pairs=script))
    return path


def _thumbnails(
    verdicts: TagVerdicts, images: TaggedImages, chosen: dict[str, Any], side: int, progress: Progress | None
) -> dict[int, Thumbnail]:
    """Makes a thumbnail of each image of the page; several cards may have the same image."""
    rows, times = np.unique(np.concatenate([verdicts.rows[each] for each in chosen.values()]), return_counts=True)
    budget = THUMBNAIL_BUDGET * len(rows) // max(1, int(times.sum()))
    thumbnails = make_thumbnails(images, rows.tolist(), side=side, budget=budget, progress=progress)
    return dict(zip(rows.tolist(), thumbnails, strict=True))


def _context(verdicts: TagVerdicts) -> dict[str, Any]:
    thresholds = verdicts.record.get("thresholds") or {}
    facts = {f"Threshold ({kind})": f"{value:.3g}" for kind, value in thresholds.items()}
    classes = sorted(verdicts.per_class(), key=lambda row: (-row[WRONG] - row[MISSING], row["class_name"]))
    return {
        **page_context(verdicts, script="tags.js", default_source="tagged images", facts=facts),
        "estimate": texts.estimate_of_tags(verdicts),
        "tags": int(verdicts.given[verdicts.is_readable].sum()),
        "counts": {kind: len(verdicts.of_kind(kind)) for kind in TAG_KINDS},
        "classes": classes[:MAX_CLASS_ROWS],
        "more_classes": max(0, len(classes) - MAX_CLASS_ROWS),
        "metrics": verdicts.metrics,
        "measures": MEASURES,
        "kinds": TAG_KINDS,
        "unreadable": unreadable_rows(*(verdicts.unreadable[name] for name in ("id", "tags", "error"))),
    }


def _section(
    verdicts: TagVerdicts, kind: str, pairs: Any, small: dict[int, Thumbnail], files: dict[int, str]
) -> dict[str, Any]:
    """Returns the section of one kind: a card for each pair."""
    records = verdicts.table.take(pairs).to_pylist()
    tags = verdicts.images["tags"]
    cards = [
        {
            **record,
            "tags": _tags_of(tags[row].as_py(), record["class_name"]),
            "thumbnail": small[row],
            "file": files[row],
        }
        for record, row in zip(records, verdicts.rows[pairs].tolist(), strict=True)
    ]
    total = len(verdicts.of_kind(kind))
    return {"kind": kind, "title": _TITLES[kind], "lead": _LEADS[kind], "cards": cards, "found": total}


def _tags_of(tags: list[str], questioned: str) -> dict[str, Any]:
    """Returns the tags on a card, the questioned tag first, and the number of further tags."""
    ordered = sorted(tags, key=lambda name: name != questioned)
    return {"names": ordered[:_TAGS], "more": max(0, len(ordered) - _TAGS)}
