"""Exports the clean part of a data set: one folder for each class, with readable images whose label is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.output_folders import UniqueNames, safe_name
from labelsieve.report.exports.export_request import ExportRequest
from labelsieve.report.exports.folder import export_folder, write_images, write_marker
from labelsieve.review.row_reviews import (
    FLAGGED_ARE_DROPPED,
    after_reviews,
    clean_part,
    corrected,
    dropped_by_reviewers,
    kept_although_flagged,
)


def write_image_folder(request: ExportRequest) -> None:
    """Writes the clean part as class folders; classes without any image are left out.

    It contains readable images that are not flagged, or flagged with a label quality above `drop_at`; and images whose
    right label a reviewer named, in the folder of that label.

    Raises:
        RunError: `out` exists or cannot be written, or the images are not those of the verdicts.
        DataError: An image file is missing.
    """
    verdicts, reviews = request.verdicts, request.reviews
    labels = corrected(verdicts, reviews or {})
    is_exported = _clean_part(request) | (labels != verdicts.given)
    is_exported &= verdicts.is_readable & ~dropped_by_reviewers(verdicts, reviews)
    rows = np.flatnonzero(is_exported).tolist()
    unique = UniqueNames()
    folders = [unique.take("", safe_name(name)) for name in verdicts.class_names]
    with export_folder(request) as part:
        write_images(request, part, {row: folders[labels[row]] for row in rows})
        write_marker(
            verdicts, part, count=len(rows), class_of_folder=dict(zip(folders, verdicts.class_names, strict=True))
        )


def _clean_part(request: ExportRequest) -> NDArray[np.bool_]:
    verdicts, drop_at = after_reviews(request.verdicts, request.reviews), request.drop_at
    clean = clean_part(verdicts, drop_at=drop_at)
    if request.progress is not None and drop_at != FLAGGED_ARE_DROPPED:
        kept_count = int(kept_although_flagged(verdicts, drop_at=drop_at).sum())
        request.progress.say(f"note: {kept_count:,} flagged images kept: p_clean above {drop_at:g}")
    return clean
