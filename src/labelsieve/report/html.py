"""The report: one HTML file that needs no network, no server and no other file.

Python writes every card and table into the page, so that it can be read and printed without JavaScript. The script adds
filters, marks and the enlarged view. All user data is escaped: by autoescaping in the page, by `tojson` in the script's
data; and a policy in the page forbids every script but the one that belongs to it.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.errors import SettingsError
from labelsieve.progress import Progress
from labelsieve.provenance import fingerprint, target_of, to_json, write_text
from labelsieve.report import common
from labelsieve.report.figures import Confusions, class_bars, confusions, histogram
from labelsieve.report.thumbnails import Thumbnail, make_thumbnails
from labelsieve.verdicts import Verdicts, check_report

# Characters for all thumbnails together: it keeps the whole file under 15 MB whatever is flagged.
THUMBNAIL_BUDGET = 9_000_000
MOST_IMAGES = 2_000
MOST_PIXELS = 512
# Images just above the threshold, shown beside the flagged ones so that a person can judge where it lies.
NEAR_MISSES = 24
MAX_CLASS_ROWS = 300
MAX_UNREADABLE = 200
_MAX_REASON = 300
# Index, name and number of cards of a class that can be filtered by.
Choice = tuple[int, str, int]


def write_report(
    verdicts: Verdicts,
    images: Labelled,
    path: str | Path,
    *,
    max_images: int = 400,
    thumbnail_px: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes the report, one self-contained HTML file of at most about 15 MB.

    Args:
        verdicts: What to report.
        images: The images that the verdicts were made from; only those of the gallery are opened. Features that were
            computed before have no pictures: their cards show the ids.
        path: The file to write, atomically.
        max_images: How many of the most suspicious images the gallery shows, 0 to 2,000.
        thumbnail_px: Longest side of the embedded pictures, 32 to 512.
        overwrite: Replace a file that is no report of labelsieve, too.
        progress: Where to show how far it is.

    Returns:
        The path of the file.

    Raises:
        SettingsError: A setting is out of range.
        RunError: The images are not those of the verdicts, something else than a report stands at the path, or the file
            cannot be written.
    """
    if not 0 <= max_images <= MOST_IMAGES:
        raise SettingsError(f"expected max_images from 0 to {MOST_IMAGES:,}, got {max_images}")
    if not 32 <= thumbnail_px <= MOST_PIXELS:
        raise SettingsError(f"expected thumbnail_px from 32 to {MOST_PIXELS}, got {thumbnail_px}")
    common.require_same_images(verdicts, images)
    path = Path(path)
    check_free(path, overwrite=overwrite)
    page = _environment().get_template("report.html.jinja")
    write_text(path, page.render(_context(verdicts, images, max_images, thumbnail_px, progress)))
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


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("labelsieve.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=common.percent, score=common.score, thousands=common.thousands)
    return environment


def _context(
    verdicts: Verdicts, images: Labelled, max_images: int, thumbnail_px: int, progress: Progress | None
) -> dict[str, Any]:
    flagged, readable = int(verdicts.is_issue.sum()), int(verdicts.is_readable.sum())
    rows = gallery_rows(verdicts, max_images=max_images)
    shown = int(verdicts.is_issue[rows].sum())
    thumbnails = [Thumbnail()] * len(rows)
    if isinstance(images, LabelledImages):
        thumbnails = make_thumbnails(images, rows, side=thumbnail_px, budget=THUMBNAIL_BUDGET, progress=progress)
    cards = _cards(verdicts, rows, thumbnails)
    classes, confused = _classes(verdicts), confusions(verdicts)
    return {
        **_assets(),
        **classes,
        **_header(verdicts),
        "names": verdicts.class_names,
        "images": len(verdicts),
        "readable": readable,
        "flagged": flagged,
        "shown": shown,
        "near_misses": len(rows) - shown,
        "findings": common.findings(verdicts.record),
        "histogram": histogram(verdicts),
        "confusions": confused,
        "cards": cards,
        "choices": _choices(verdicts, cards, _linked(classes["bars"], confused)),
        "data": _script_data(verdicts, images, cards),
        "unreadable": _unreadable(verdicts),
        "unreadable_count": len(verdicts) - readable,
        "metrics": verdicts.metrics,
    }


def _assets() -> dict[str, Any]:
    """Reads style and script; the script is admitted by its hash alone."""
    folder = Path(__file__).with_name("templates")
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = (folder / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}  # our own files, no user data


def _header(verdicts: Verdicts) -> dict[str, Any]:
    record = verdicts.record
    model, detector = common.section(record, "model"), common.section(record, "detector")
    source = str(record.get("source") or "labelled images")
    facts = {
        "Source": source,
        "Model": model.get("name"),
        "Detector": " · ".join(str(detector[key]) for key in ("name", "recipe") if detector.get(key)),
        "Untrained model agrees": _agreement(record.get("zero_shot_agreement")),
        "Test images": common.tested(record),
        "Threshold": common.short(record.get("threshold") or None),  # at 0 only the agreement decides
        "Also flagged" if record.get("threshold") else "Flagged": _demand(record.get("demand_agreement")),
        "Took": " on ".join(part for part in (common.duration(record.get("seconds")), record.get("hardware")) if part),
    }
    settings = detector.get("settings")
    return {
        "source": Path(source).name or source,
        "created": str(record.get("created") or ""),
        "moment": common.moment(record.get("created")),
        "version": str(record.get("labelsieve") or ""),
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "")},
        "settings": to_json(settings) if settings else "",
        "fingerprints": {
            name: str(part["fingerprint"])
            for name, part in (("Data", common.section(record, "data")), ("Model", model))
            if part.get("fingerprint")
        },
    }


def _agreement(share: float | None) -> str | None:
    return None if share is None else f"with {common.percent(share)} of given labels"


def _demand(agreement: bool | None) -> str | None:
    return "where another class is likelier" if agreement else None


def _classes(verdicts: Verdicts) -> dict[str, Any]:
    rows = [{"index": index, **row} for index, row in enumerate(verdicts.per_class())]
    bars, more_bars = class_bars(rows)
    rows.sort(key=lambda row: (-row["flagged"], -row["images"], row["class_name"]))
    return {
        "bars": bars,
        "more_bars": more_bars,
        "classes": rows[:MAX_CLASS_ROWS],
        "more_classes": max(0, len(rows) - MAX_CLASS_ROWS),
    }


def gallery_rows(verdicts: Verdicts, *, max_images: int) -> list[int]:
    """Returns row numbers by rank: flagged images, then a few just above the threshold if there is room for them."""
    flagged = int(verdicts.is_issue.sum())
    wanted = min(max_images, flagged + NEAR_MISSES)
    rank = np.asarray(verdicts.table["rank"].fill_null(len(verdicts) + 1))
    order = np.argsort(rank, kind="stable")
    return [int(row) for row in order[:wanted] if verdicts.is_readable[row]]


def _cards(verdicts: Verdicts, rows: list[int], thumbnails: list[Thumbnail]) -> list[dict[str, Any]]:
    records = verdicts.table.take(rows).to_pylist() if rows else []
    return [
        {
            **record,
            "given": int(verdicts.given[row]),
            "suggested": int(verdicts.predicted[row]),
            "thumbnail": thumbnail,
        }
        for row, record, thumbnail in zip(rows, records, thumbnails, strict=True)
    ]


def _choices(
    verdicts: Verdicts, cards: list[dict[str, Any]], linked: Mapping[str, set[int]]
) -> dict[str, list[Choice]]:
    """Returns (index, name, number of cards) for the two class filters: the classes of cards and all linked ones."""
    result = {}
    for side in ("given", "suggested"):
        counts = Counter(card[side] for card in cards)
        entries = [(index, verdicts.class_names[index], counts[index]) for index in linked[side] | set(counts)]
        result[side] = sorted(entries, key=lambda entry: (entry[1].casefold(), entry[1]))
    return result


def _linked(bars: list[dict[str, Any]], confused: Confusions) -> dict[str, set[int]]:
    """Returns the classes that figures link to as filters."""
    pairs = [*confused.pairs, *(pair for row in confused.matrix for pair in row if pair.count)]
    return {
        "given": {row["index"] for row in bars} | {pair.given for pair in pairs},
        "suggested": {pair.suggested for pair in pairs},
    }


def _script_data(verdicts: Verdicts, images: Labelled, cards: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script needs. Marks belong to pictures and their given labels, so they outlive a new report on them."""
    known = common.section(verdicts.record, "data").get("fingerprint")
    return {
        "key": str(known or fingerprint(images.fingerprint)),
        "cards": [
            {
                "id": card["id"],
                "given": card["given"],
                "suggested": card["suggested"],
                "givenName": card["given_label"],
                "suggestedName": card["predicted_label"],
                "quality": _shortest(card["label_quality"]),
                "rank": card["rank"],
                "flagged": card["is_label_issue"],
            }
            for card in cards
        ],
    }


def _shortest(value: float | None) -> float | None:
    """Returns the shortest decimal that stands for the same float32."""
    return None if value is None or value != value else float(str(np.float32(value)))


def _unreadable(verdicts: Verdicts) -> list[dict[str, str]]:
    rows = np.flatnonzero(~verdicts.is_readable)[:MAX_UNREADABLE]
    records = verdicts.table.select(["id", "given_label", "error"]).take(rows).to_pylist()
    return [{**row, "error": row["error"].removeprefix(f"{row['id']}: ")[:_MAX_REASON]} for row in records]
