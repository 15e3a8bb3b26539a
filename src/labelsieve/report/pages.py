"""What the reports of labels and of tags share: templates, the data of each page, and links to images."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from labelsieve.core import quantities
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json
from labelsieve.data.images import Images
from labelsieve.data.labelled import Labelled
from labelsieve.report import texts
from labelsieve.report.figures import Confusions, class_bars, confusions
from labelsieve.tags.verdicts import TagVerdicts
from labelsieve.verdicts import Verdicts

# Characters of all thumbnails together: keeps the file below 40 MB with the default number of images.
THUMBNAIL_BUDGET = 24_000_000
# Number of unreadable images that are listed, and of characters of each reason.
MAX_UNREADABLE, MAX_REASON = 200, 300


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """The data of the sections of a report.

    Attributes:
        verdicts: Of N images.
        images: Their images.
        rows: Row numbers of the images on the page.
        progress: Receives progress.
    """

    verdicts: Verdicts
    images: Labelled
    rows: list[int]
    progress: Progress | None = None

    @functools.cached_property
    def classes(self) -> list[dict[str, Any]]:
        """Returns :meth:`Verdicts.per_class`, rows with `index`, and `here`, its number of images on the page."""
        verdicts = self.verdicts
        flagged = verdicts.given[self.rows][verdicts.is_issue[self.rows]]
        on_page = np.bincount(flagged, minlength=len(verdicts.class_names))
        return [{"index": index, "here": int(on_page[index]), **row} for index, row in enumerate(verdicts.per_class())]

    @functools.cached_property
    def bars(self) -> tuple[list[dict[str, Any]], int]:
        """See :func:`labelsieve.report.figures.class_bars`."""
        return class_bars(self.classes)

    @functools.cached_property
    def confusions(self) -> Confusions:
        """Returns the given and suggested labels of the flagged images on the page."""
        return confusions(self.verdicts, self.rows)


@functools.cache  # compiling a page takes longer than rendering it
def environment(package: str = "labelsieve.report") -> Environment:
    """Returns the Jinja environment of the HTML templates in a package, with the filters of the reports."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=quantities.percent, score=texts.score, thousands=quantities.thousands, unbroken=_unbroken
    )
    return environment


def _unbroken(text: str) -> Markup:
    """Escapes a text and keeps numbers and their units, and options, on one line; copied text has normal spaces."""
    return Markup("").join(
        Markup('<span class="unbroken">{}</span>').format(part) if is_unbroken else escape(part)
        for part, is_unbroken in quantities.unbroken_parts(text)
    )


def page_context(
    verdicts: Verdicts | TagVerdicts, *, script: str, default_source: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the data of a report that do not depend on its images.

    Args:
        verdicts: The verdicts of the run.
        script: File name of the script of the page.
        default_source: Name of the data, if they were in memory.
        facts: Facts that only this page has, by title; those that are None or empty are left out.
    """
    run, detector = verdicts.run, verdicts.run.detector
    source = run.source or default_source
    facts = {
        "Source": source,
        "Model": run.model.name,
        "Detector": " · ".join(part for part in (detector.name, detector.recipe) if part),
        **facts,
        "Took": " on ".join(part for part in (quantities.duration(run.seconds), run.hardware) if part),
    }
    return {
        **_assets(script),
        "source": Path(source).name or source,
        "created": run.created or "",
        "moment": texts.moment(run.created),
        "version": run.labelsieve or "",
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "")},
        "fingerprints": {
            name: part.fingerprint for name, part in (("Data", run.data), ("Model", run.model)) if part.fingerprint
        },
        "settings": to_json(detector.settings) if detector.settings else "",
        "run": shlex.quote(run.out or "RUN"),
        "names": verdicts.class_names,
        "images": len(verdicts),
        "unreadable_count": int((~verdicts.is_readable).sum()),
    }


def unreadable_rows(ids: pa.ChunkedArray, given: pa.ChunkedArray, errors: pa.ChunkedArray) -> list[dict[str, str]]:
    """Returns the first images that could not be read, for the table on a page.

    Args:
        ids: Their ids, (n,).
        given: The given label of each, or its tags.
        errors: Why; the id that an error begins with is left out.
    """
    columns = (column.slice(0, MAX_UNREADABLE).to_pylist() for column in (ids, given, errors))
    return [
        {
            "id": image,
            "given": label if isinstance(label, str) else ", ".join(label),
            "error": error.removeprefix(f"{image}: ")[:MAX_REASON],
        }
        for image, label, error in zip(*columns, strict=True)
    ]


def _assets(script_file: str) -> dict[str, Any]:
    """Reads the style and the scripts of all pages and of one page; the policy allows the script by its hash."""
    folder = Path(__file__).with_name("templates")
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in ("page.js", script_file))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}  # our own files, no user data


def file_link(images: Images, row: int, page: Path) -> str:
    """Returns the percent-encoded link to an image file from the page; empty if there is no such file.

    Args:
        images: The images of the run.
        row: The row of the image.
        page: The HTML file that links to it.
    """
    data, path = images.cell(row)
    if data is not None or not path or not os.path.isfile(path):
        return ""
    try:
        relative = os.path.relpath(path, page.absolute().parent)
    except ValueError:  # on another drive of Windows
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def shortest(value: float | None) -> float | None:
    """Returns the shortest decimal that represents the same float32."""
    return None if value is None or value != value else float(str(np.float32(value)))
