"""The annotation file of boxes again, with the corrected labels and, beside each, what the run says of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.sources.edits import RowVerdicts
from labelsieve.report.common import require_same_images
from labelsieve.report.request import ExportRequest
from labelsieve.review.apply import apply, check_target
from labelsieve.review.changes import LEFT_OUT, Placed
from labelsieve.review.rows import after_reviews, corrected, dropped_by_reviewers
from labelsieve.verdicts import Verdicts


def write_annotations(request: ExportRequest) -> None:
    """Writes the source of boxes in its form, with the corrected labels and a label quality for each box.

    A label that was corrected has label quality 1 and is no issue. Boxes that the run did not scan, or could not read,
    stay without. Those that reviewers left out are left out. A file may be replaced, a folder is not.

    Raises:
        SettingsError: The run has no boxes, or they do not come from a file.
        RunError: `out` is in the way or cannot be written, or the images are not those of the verdicts.
        DataError: The annotations cannot be written with more in them.
    """
    images, out, progress = request.images, request.out, request.progress
    verdicts = after_reviews(request.verdicts, request.reviews)
    labels = corrected(request.verdicts, request.reviews or {})
    dropped = dropped_by_reviewers(request.verdicts, request.reviews)
    if images.boxes is None:
        raise SettingsError("format annotations is for boxes, and this run scanned whole images; use csv or parquet")
    require_same_images(verdicts, images)
    if not images.origin.get("source"):
        raise SettingsError("these boxes come from no file that could be written again; use csv or parquet")
    whole = _whole(images, progress)
    place = {name: row for row, name in enumerate(whole.ids)}
    rows = np.array([place[name] for name in images.ids], dtype=np.int64)
    new = whole.labels.copy()
    new[rows] = np.where(dropped, LEFT_OUT, labels)
    changed, left_out = int((labels != verdicts.given).sum()), int(dropped.sum())
    with_labels = Placed(labels=new, changed=changed, left_out=left_out, done=0, differing=(), missing=())
    said = _said(verdicts, rows, len(whole), corrected=labels != verdicts.given, labels=labels)
    target = _target(str(images.origin["source"]), out, overwrite=request.overwrite)
    options = {name: value for name, value in images.origin.items() if name not in ("limit", "seed")}
    applied = apply(
        whole, with_labels, options=options, out=target, copy=request.copy, verdicts=said, progress=progress
    )
    if progress is not None:
        for note in applied.notes:
            progress.say(f"note: {note}")
    if target != out:
        target.replace(out)


def _whole(images: LabelledImages, progress: Progress | None) -> LabelledImages:
    """Returns all boxes of the source, of which a run may have scanned a subset."""
    if "limit" not in images.origin:
        return images
    options = {name: value for name, value in images.origin.items() if name not in ("limit", "seed")}
    return load_images(**options, progress=progress)


def _said(
    verdicts: Verdicts, rows: NDArray[np.int64], count: int, *, corrected: NDArray[np.bool_], labels: NDArray[np.int64]
) -> RowVerdicts:
    """Returns what a run says of all rows of its source."""
    quality, predicted = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    is_issue = np.zeros(count, dtype=np.bool_)
    known = np.where(verdicts.is_readable, verdicts.label_quality, np.nan)
    quality[rows] = np.where(corrected, 1.0, known)
    predicted[rows] = np.where(corrected, labels, np.maximum(verdicts.predicted, 0))
    is_issue[rows] = verdicts.is_issue & ~corrected
    return RowVerdicts(quality=quality, predicted=predicted, is_issue=is_issue)


def _target(source: str, out: Path, *, overwrite: bool) -> Path:
    """Returns where to write: beside a file that is replaced, once the new one is whole.

    Raises:
        RunError: Something is there that is not to be replaced, or is the source.
    """
    if not os.path.lexists(out):
        return out
    if not overwrite:
        raise RunError(f"{out} is there already; choose another name or pass --overwrite (overwrite=True)")
    if not out.is_file() or out.is_symlink() or os.path.samefile(out, Path(source).expanduser()):
        raise RunError(f"expected a file to replace that is not the source, {out} is none; choose another name")
    target = out.with_name(f".{out.stem}.new{out.suffix}")
    target.unlink(missing_ok=True)
    check_target(source, target)
    return target
