"""Exports the annotation file of boxes with corrected labels and the label quality of each box."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.files import expand_home
from labelsieve.core.output_folders import check_free
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images, without_subset
from labelsieve.data.sources.edits import RowVerdicts
from labelsieve.report.exports.registry import ExportRequest
from labelsieve.review.apply import apply
from labelsieve.review.changes import LEFT_OUT
from labelsieve.verdicts import Verdicts, require_same_images


def write_annotations(request: ExportRequest) -> None:
    """Writes the source of boxes in its own format, with corrected labels and a label quality for each box.

    A corrected label has label quality 1 and is no issue. Boxes that the run did not scan, or could not read, have no
    label quality. Boxes that reviewers left out are left out. A file may be replaced, a folder may not.

    Raises:
        SettingsError: The run has no boxes, or they do not come from a file.
        RunError: `out` exists or cannot be written, or the images are not those of the verdicts.
        DataError: The format of the annotations has no place for a label quality.
    """
    images, out, progress, reviewed = request.images, request.out, request.progress, request.reviewed
    verdicts, labels = reviewed.after, reviewed.labels
    if images.boxes is None:
        raise SettingsError("format annotations is for boxes, and this run scanned whole images; use csv or parquet")
    require_same_images(verdicts.table, images)
    if not images.origin.get("source"):
        raise SettingsError("these boxes come from no file that could be written again; use csv or parquet")
    full_source = _full_source(images, progress)
    row_of = {name: row for row, name in enumerate(full_source.ids)}
    rows = np.array([row_of[name] for name in images.ids], dtype=np.int64)
    new_labels = full_source.labels.copy()
    new_labels[rows] = np.where(reviewed.is_dropped, LEFT_OUT, labels)
    row_verdicts = _row_verdicts(verdicts, rows, len(full_source), corrected=reviewed.is_corrected, labels=labels)
    target = _target(str(images.origin["source"]), out, overwrite=request.overwrite)
    applied = apply(
        full_source,
        new_labels,
        options=full_source.origin,
        out=target,
        copy=request.copy,
        verdicts=row_verdicts,
        progress=progress,
    )
    if progress is not None:
        progress.say_notes(applied.notes)
    if target != out:
        target.replace(out)


def _full_source(images: LabelledImages, progress: Progress | None) -> LabelledImages:
    """Returns all boxes of the source; the run may have scanned a subset."""
    if "limit" not in images.origin:
        return images
    return load_images(**without_subset(images.origin), progress=progress)


def _row_verdicts(
    verdicts: Verdicts, rows: NDArray[np.int64], count: int, *, corrected: NDArray[np.bool_], labels: NDArray[np.int64]
) -> RowVerdicts:
    """Returns the verdicts for all rows of the source."""
    quality, predicted = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    is_issue = np.zeros(count, dtype=np.bool_)
    original = np.where(verdicts.is_readable, verdicts.label_quality, np.nan)
    quality[rows] = np.where(corrected, 1.0, original)
    predicted[rows] = np.where(corrected, labels, np.maximum(verdicts.predicted, 0))
    is_issue[rows] = verdicts.is_issue & ~corrected
    return RowVerdicts(quality=quality, predicted=predicted, is_issue=is_issue)


def _target(source: str, out: Path, *, overwrite: bool) -> Path:
    """Returns the path to write to: a temporary name beside a file that is then replaced.

    Raises:
        RunError: The path exists and must not be replaced, or is the source.
    """
    check_free(out, overwrite=overwrite)
    if not os.path.lexists(out):
        return out
    if not out.is_file() or out.is_symlink() or os.path.samefile(out, expand_home(source)):
        raise RunError(f"expected a file to replace that is not the source, {out} is none; choose another name")
    target = out.with_name(f".{out.stem}.new{out.suffix}")
    target.unlink(missing_ok=True)
    return target
