"""Corrected labels, written back in the form that a data set came in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, RunError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns
from labelsieve.data.sources.edits import Edits, RowVerdicts
from labelsieve.data.sources.readers import find_source
from labelsieve.review.changes import Placed
from labelsieve.review.writers.base import Applied
from labelsieve.review.writers.registry import WRITERS


def apply(
    images: LabelledImages,
    placed: Placed,
    *,
    options: Mapping[str, Any],
    out: Path | None,
    copy: bool = False,
    verdicts: RowVerdicts | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Writes a data set again with other labels, in the form that it has.

    A folder of class folders, a table in one or several CSV, Parquet or Arrow files, annotation files of boxes, a
    folder of `save_to_disk`. A data set of the Hub becomes such a folder.

    Args:
        images: All images of the source, with their labels of now.
        placed: Their new labels.
        options: What the images were loaded with: `source` and what :func:`labelsieve.load_images` takes beside it.
        out: The file or folder to write, where nothing is yet; None changes the source itself and keeps a backup.
        copy: Copy the images of a folder instead of linking to them.
        verdicts: What is written beside the labels of a table or of boxes.
        progress: Where to show how far it is.

    Raises:
        DataError: The source has no form that labels can be written to.
        RunError: Something is in the way, or cannot be written; the source stays as it was.
    """
    source, split = str(options["source"]), options.get("split")
    if options.get("noise"):
        raise DataError(
            "the given labels are those of a file of noise, which the source does not hold; scan it without --noise"
        )
    place = find_source(source, split=split)
    if place.kind not in WRITERS:
        raise DataError(
            f"labels are not written back into the official layout of {source}; write a folder with: "
            "labelsieve export RUN --format imagefolder"
        )
    writer = WRITERS[place.kind](
        place=place,
        source=source,
        split=split,
        asked=_asked(options),
        images=images,
        edits=Edits(old=images.labels, new=placed.labels, class_names=images.class_names, verdicts=verdicts),
        copy=copy,
        progress=progress or Progress(),
    )
    if out is None:
        return writer.in_place()
    check_target(writer.origin, out)
    return writer.to(out)


def _asked(options: Mapping[str, Any]) -> Columns:
    return Columns(
        image=options.get("image_column"),
        label=options.get("label_column"),
        truth=options.get("truth_column"),
        folder=Path(options["image_folder"]) if options.get("image_folder") else None,
    )


def check_target(source: str, out: Path | None) -> None:
    """Checks that a corrected data set may be written to a place, before anything expensive starts.

    Args:
        source: The data set.
        out: Where to write it; None for the source itself.

    Raises:
        RunError: Something is there, or one lies in the other.
    """
    if out is None:
        return
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise RunError(f"{out} is there already; choose another name, or remove it")
    path = Path(os.path.realpath(Path(source).expanduser()))
    if path.is_dir() and Path(os.path.realpath(out)).is_relative_to(path):
        raise RunError(f"expected --out outside of the source folder, got {out} in {source}; choose a folder beside it")
