"""Exports the clean part of a data set: one folder for each class, with readable images whose label is right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.output_folders import UniqueNames, safe_name
from labelsieve.report.exports.folder import export_folder, write_images, write_marker
from labelsieve.report.exports.registry import ExportRequest
from labelsieve.review.row_reviews import FLAGGED_ARE_DROPPED, Reviewed, clean_part, kept_although_flagged


def write_image_folder(request: ExportRequest) -> None:
    """Writes the clean part as class folders; classes without any image are left out.

    It contains readable images that are not flagged, or flagged with a label quality above `drop_at`; and images whose
    right label a reviewer named, in the folder of that label.

    Raises:
        RunError: `out` exists or cannot be written, or the images are not those of the verdicts.
        DataError: An image file is missing.
    """
    verdicts, reviewed = request.verdicts, request.reviewed
    is_exported = _clean_part(request) | reviewed.is_corrected
    is_exported &= verdicts.is_readable & ~reviewed.is_dropped
    if request.progress is not None:
        request.progress.say_notes(_reasons(reviewed, ~is_exported))
    rows = np.flatnonzero(is_exported).tolist()
    unique = UniqueNames()
    folders = [unique.take("", safe_name(name)) for name in verdicts.class_names]
    with export_folder(request) as part:
        write_images(request, part, {row: folders[reviewed.labels[row]] for row in rows})
        write_marker(
            verdicts, part, count=len(rows), class_of_folder=dict(zip(folders, verdicts.class_names, strict=True))
        )


def _reasons(reviewed: Reviewed, is_left_out: NDArray[np.bool_]) -> Iterator[str]:
    """Yields a note on why images are left out, if any are."""
    dropped, wrong, readable = reviewed.is_dropped, reviewed.marks == "wrong", reviewed.verdicts.is_readable
    counts = {
        "flagged": is_left_out & readable & ~dropped & ~wrong,
        "wrong by a review that names no class": is_left_out & readable & ~dropped & wrong,
        "left out by a review": readable & dropped,
        "unreadable": ~readable,
    }
    if reasons := [f"{int(rows.sum()):,} {reason}" for reason, rows in counts.items() if rows.any()]:
        yield f"not written: {', '.join(reasons)}"


def _clean_part(request: ExportRequest) -> NDArray[np.bool_]:
    verdicts, drop_at = request.reviewed.after, request.drop_at
    clean = clean_part(verdicts, drop_at=drop_at)
    if request.progress is not None and drop_at != FLAGGED_ARE_DROPPED:
        kept_count = int(kept_although_flagged(verdicts, drop_at=drop_at).sum())
        request.progress.say(f"note: {kept_count:,} flagged images kept: p_clean above {drop_at:g}")
    return clean
