"""Writes corrected labels back in the format of the data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError
from labelsieve.core.output_folders import check_outside
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns
from labelsieve.data.sources.edits import Edits, RowVerdicts
from labelsieve.data.sources.readers import find_source
from labelsieve.review.writers.base import Applied
from labelsieve.review.writers.registry import WRITERS


def apply(
    images: LabelledImages,
    labels: NDArray[np.int64],
    *,
    options: Mapping[str, Any],
    out: Path | None,
    copy: bool = False,
    verdicts: RowVerdicts | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Writes a data set with other labels, in its own format.

    The formats are class folders, a table in one or several CSV, Parquet or Arrow files, annotation files of boxes, and
    a folder of `save_to_disk`. A data set of the Hub is written as such a folder.

    Args:
        images: All images of the source, with their current labels.
        labels: Their new labels, (N,); :data:`labelsieve.review.changes.LEFT_OUT` leaves an image out.
        options: The arguments that the images were loaded with: `source` and options of
            :func:`labelsieve.load_images`.
        out: The file or folder to write, new or an empty folder; None changes the source itself and keeps a backup.
        copy: Whether to copy the images of a folder instead of linking to them.
        verdicts: Verdicts to write beside the labels of boxes.
        progress: Receives progress.

    Raises:
        DataError: Labels cannot be written in the format of the source.
        RunError: The output exists, or cannot be written; the source stays unchanged.
    """
    source, split = str(options["source"]), options.get("split")
    if options.get("noise"):
        raise DataError(
            "the given labels are those of a file of noise, which the source does not hold; scan it without --noise"
        )
    if isinstance(options.get("label_column"), list | tuple):
        raise DataError(
            "the given label is the vote of several annotators, and no column of the source holds it; write the "
            "corrected labels with: labelsieve export RUN --format csv"
        )
    location = find_source(source, split=split)
    if location.kind not in WRITERS:
        raise DataError(
            f"labels are not written back into the official layout of {source}; write a folder with: "
            "labelsieve export RUN --format imagefolder"
        )
    writer = WRITERS[location.kind](
        location=location,
        source=source,
        split=split,
        requested=Columns(
            image=options.get("image_column"),
            label=options.get("label_column"),
            truth=options.get("truth_column"),
            folder=Path(options["image_folder"]) if options.get("image_folder") else None,
        ),
        images=images,
        edits=Edits(old=images.labels, new=labels, class_names=images.class_names, verdicts=verdicts),
        copy=copy,
        progress=progress or Progress(),
    )
    if out is None:
        return writer.in_place()
    check_target(writer.companion_folder, out)
    return writer.to(out)


def check_target(source: str | Path, out: Path | None) -> None:
    """Checks that a corrected data set may be written to a path, before anything expensive starts.

    Args:
        source: The data set.
        out: The path to write to; None for the source itself.

    Raises:
        RunError: The path exists and is not an empty folder, or is inside the source.
    """
    if out is None:
        return
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise RunError(f"{out} is there already; choose another name, or remove it")
    check_outside(out, source)
