"""The report: one HTML file that needs no network, no server and no other file.

Python writes every card and table into the page, so that it can be read and printed without JavaScript. The script adds
filters, marks and the enlarged view. All user data is escaped: by autoescaping in the page, by `tojson` in the script's
data; and a policy in the page forbids every script but the one that belongs to it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from labelsieve.core import quantities
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint, target_of, to_json, write_text
from labelsieve.core.validation import check_value
from labelsieve.data.images import Images as AnyImages
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.report import MAX_IMAGES, Images, ThumbnailPixels, common
from labelsieve.report.panels import PANELS, Page
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.review.statement import Statement
from labelsieve.verdicts import Verdicts, check_report

# Characters for all thumbnails together: it keeps the whole file below 40 MB with as many images as by default.
THUMBNAIL_BUDGET = 24_000_000
# Images just above the threshold, shown beside the flagged ones so that a person can check where it lies.
NEAR_MISSES = 24

# Index and name of a class that can be filtered by.
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
    """Writes the report, one self-contained HTML file: some 5 kB for each image that it shows, below 40 MB by default.

    Args:
        verdicts: What to report.
        images: The images that the verdicts were made from; only those of the gallery are opened. Features that were
            computed before have no images: their cards show the ids.
        path: The file to write, atomically.
        max_images: How many of the most suspicious images the gallery shows, 0 to 20,000.
        thumbnail_px: Longest side of the embedded images, 32 to 512.
        overwrite: Replace a file that is no report of labelsieve, too.
        audit: What an audit proves, from :func:`labelsieve.review.audit.statement`; its sentences stand at the top.
        progress: Where to show how far it is.

    Returns:
        The path of the file.

    Raises:
        SettingsError: A setting is out of range.
        RunError: The images are not those of the verdicts, something else than a report stands at the path, or the file
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
    check_value("max_images", max_images, Images)
    check_value("thumbnail_px", thumbnail_px, ThumbnailPixels)
    common.require_same_images(verdicts, images)
    path = Path(path)
    check_free(path, overwrite=overwrite)
    page = environment().get_template("report.html.jinja")
    context = _context(verdicts, images, max_images, thumbnail_px, path, progress)
    write_text(path, page.render(context, audit=audit.sentences if audit else ()))
    return path


def check_free(path: Path, *, overwrite: bool) -> None:
    """Checks that a report may be written to a path.

    Raises:
        RunError: Something else than a file is there or, without `overwrite`, a file that is no report of labelsieve.
    """
    if overwrite:
        target_of(path)
    else:
        check_report(path, advice="choose another name or pass --overwrite (overwrite=True)")


@functools.cache  # it keeps the compiled page, which takes longer to compile than to fill in
def environment() -> Environment:
    """Returns what fills in the templates of reports, with their filters."""
    environment = Environment(
        loader=PackageLoader("labelsieve.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=quantities.percent, score=common.score, thousands=common.thousands, unbroken=_unbroken
    )
    return environment


def _unbroken(text: str) -> Markup:
    """Escapes a text and keeps its numbers with their units on one line; what is copied has usual spaces."""
    return Markup("").join(
        Markup('<span class="quantity">{}</span>').format(part) if whole else escape(part)
        for part, whole in quantities.split_units(text)
    )


def _context(
    verdicts: Verdicts, images: Labelled, max_images: int, thumbnail_px: int, path: Path, progress: Progress | None
) -> dict[str, Any]:
    flagged, readable = int(verdicts.is_issue.sum()), int(verdicts.is_readable.sum())
    rows = gallery_rows(verdicts, max_images=max_images)
    shown = int(verdicts.is_issue[rows].sum())
    thumbnails, files = [Thumbnail()] * len(rows), [""] * len(rows)
    if isinstance(images, LabelledImages):
        budget = THUMBNAIL_BUDGET * max(MAX_IMAGES, len(rows)) // MAX_IMAGES  # more images make a larger file, no blur
        options: dict[str, Any] = {"side": thumbnail_px, "budget": budget, "progress": progress}
        thumbnails = make_thumbnails(images, rows, surroundings=True, **options)
        files = [file_link(images, row, path) for row in rows]
    cards = _cards(verdicts, images, rows, thumbnails)
    about = Page(verdicts=verdicts, images=images, rows=rows, progress=progress)
    panels = {name: found for name in PANELS if (found := PANELS[name](about)) is not None}
    return {
        **assets("report.js"),
        **_header(verdicts),
        **{key: value for found in panels.values() for key, value in found.items()},
        "panels": {name: PANELS.about(name) for name in panels},
        "names": verdicts.class_names,
        "images": len(verdicts),
        "unit": verdicts.unit,
        "readable": readable,
        "flagged": flagged,
        "shown": shown,
        "near_misses": len(rows) - shown,
        "more": common.all_flagged(verdicts, shown=shown),
        "estimate": common.estimate(verdicts),
        "run": shlex.quote(verdicts.run.out or "RUN"),
        "has_files": any(files),
        "cards": cards,
        "choices": _choices(verdicts, cards, _linked(about)),
        "data": _script_data(verdicts, images, cards, files),
        "unreadable_count": len(verdicts) - readable,
    }


def assets(script_file: str) -> dict[str, Any]:
    """Reads style and script, that of all pages and one's own; the script is admitted by its hash alone."""
    folder = Path(__file__).with_name("templates")
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in ("page.js", script_file))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}  # our own files, no user data


def _header(verdicts: Verdicts) -> dict[str, Any]:
    run, detector = verdicts.run, verdicts.run.detector
    source = run.source or "labelled images"
    facts = {
        "Source": source,
        "Model": run.model.name,
        "Detector": " · ".join(part for part in (detector.name, detector.recipe) if part),
        "Zero-shot model agrees": f"with {agreement}" if (agreement := common.agreement(run)) else None,
        "Test images": common.tested(run),
        **run.rule.facts(),
        "Took": " on ".join(part for part in (quantities.duration(run.seconds), run.hardware) if part),
    }
    return {
        "source": Path(source).name or source,
        "created": run.created or "",
        "moment": common.moment(run.created),
        "version": run.labelsieve or "",
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "")},
        "settings": to_json(detector.settings) if detector.settings else "",
        "fingerprints": {
            name: part.fingerprint for name, part in (("Data", run.data), ("Model", run.model)) if part.fingerprint
        },
    }


def gallery_rows(verdicts: Verdicts, *, max_images: int) -> list[int]:
    """Returns row numbers by rank: flagged images, then a few just above the threshold if there is room for them."""
    flagged = int(verdicts.is_issue.sum())
    wanted = min(max_images, flagged + NEAR_MISSES)
    rank = np.asarray(verdicts.table["rank"].fill_null(len(verdicts) + 1))
    order = np.argsort(rank, kind="stable")
    return [int(row) for row in order[:wanted] if verdicts.is_readable[row]]


def _cards(verdicts: Verdicts, images: Labelled, rows: list[int], thumbnails: list[Thumbnail]) -> list[dict[str, Any]]:
    boxed = images if isinstance(images, LabelledImages) and images.boxes is not None else None
    records = verdicts.table.take(rows).to_pylist() if rows else []
    return [
        {
            **record,
            "given": int(verdicts.given[row]),
            "suggested": int(verdicts.predicted[row]),
            "thumbnail": thumbnail,
            "image_name": "" if boxed is None else boxed.file_name(row),  # several boxes are of one image
        }
        for row, record, thumbnail in zip(rows, records, thumbnails, strict=True)
    ]


def _choices(
    verdicts: Verdicts, cards: list[dict[str, Any]], linked: Mapping[str, set[int]]
) -> dict[str, list[Choice]]:
    """Returns index and name for the two class filters: the classes of cards and all linked ones. The script counts."""
    result = {}
    for side in ("given", "suggested"):
        indices = linked[side] | {card[side] for card in cards}
        entries = [(index, verdicts.class_names[index]) for index in indices]
        result[side] = sorted(entries, key=lambda entry: (entry[1].casefold(), entry[1]))
    return result


def _linked(page: Page) -> dict[str, set[int]]:
    """Returns the classes that figures link to as filters."""
    pairs = [*page.confusions.pairs, *(pair for row in page.confusions.matrix for pair in row if pair.count)]
    return {
        "given": {row["index"] for row in page.bars[0]} | {pair.given for pair in pairs},
        "suggested": {pair.suggested for pair in pairs},
    }


def file_link(images: AnyImages, row: int, page: Path) -> str:
    """Returns where the image file lies as seen from the page; empty where the data hold the image themselves."""
    cell = images.dataset[row]["image"]
    if cell is None or cell["bytes"] is not None or not cell["path"] or not os.path.isfile(cell["path"]):
        return ""
    try:
        place = os.path.relpath(cell["path"], page.absolute().parent)
    except ValueError:  # on another drive of Windows
        return Path(cell["path"]).absolute().as_uri()
    return quote(os.fsencode(place.replace(os.sep, "/")))


def _script_data(verdicts: Verdicts, images: Labelled, cards: list[dict[str, Any]], files: list[str]) -> dict[str, Any]:
    """What the script needs. Marks belong to images and their given labels, so they outlive a new report on them."""
    return {
        "key": verdicts.run.data.fingerprint or fingerprint(images.fingerprint),
        "names": verdicts.class_names,  # all of them: any may be the right one
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
    """Returns where a box and what is shown of its image are, and the name of that; nothing where there is no box."""
    small = card["thumbnail"]
    return {"box": small.box, "window": small.window, "image": card["image_name"]} if small.box else {}


def shortest(value: float | None) -> float | None:
    """Returns the shortest decimal that stands for the same float32."""
    return None if value is None or value != value else float(str(np.float32(value)))
