"""Selects training rows, labels and weights from the verdicts and, if there are any, reviews.

By default it selects the clean part (:func:`labelsieve.review.row_reviews.clean_part`), images that a reviewer
corrected, and flagged images that are more likely right than wrong: those that `labelsieve export --format imagefolder
--drop-at 0.5` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, setting
from labelsieve.finetune.settings import Adaptation
from labelsieve.review.mark_files import MARKS
from labelsieve.review.row_reviews import Reviewed, RowReviews, clean_part, kept_although_flagged
from labelsieve.verdicts import Verdicts

# Maximum number of names in a note.
_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The training part of N images.

    Attributes:
        rows: Shape (n,), int64, ascending: the rows to train on.
        labels: Shape (N,), int64: the training label of each row, undefined for other rows. For tags (N, K), float32:
            1, 0, or NaN for a pair of image and class that is left out of the loss.
        weights: Shape (N,), float32, with mean 1 over `rows`.
        counts: Number of images in all, used, dropped, relabelled, flagged but kept (`kept`), left out by reviewers as
            copies, leaks or defects (`left_out`), unreadable, and marked by a person.
        notes: Remarks for the user, one line each.
    """

    rows: NDArray[np.int64]
    labels: NDArray[Any]
    weights: NDArray[np.float32]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def strata(self) -> NDArray[np.int64]:
        """Shape (N,): strata of the validation split: the classes; for tags, one stratum."""
        return self.labels if self.labels.ndim == 1 else np.zeros(len(self.labels), dtype=np.int64)


def choose(verdicts: Verdicts, settings: Adaptation, *, reviews: RowReviews | None = None) -> Selection:
    """Selects rows, labels and weights.

    Reviews override verdicts. An image that a reviewer corrected is used with the new class; a label found right is
    kept; a wrong one drops the image or, with labels `relabel`, is replaced by the predicted label; unsure leaves the
    decision to the verdict. See :attr:`labelsieve.review.row_reviews.Reviewed.after`. Copies that reviewers left out
    are not used.

    Args:
        verdicts: Of N images.
        settings: Its `labels`, `drop_at`, `weighting` and `class_weights`.
        reviews: Row to review, from :func:`labelsieve.review.row_reviews.read_reviews`.

    Raises:
        DataError: No image is selected, or a review names an unknown class.
    """
    reviewed = Reviewed(verdicts=verdicts, reviews=reviews)
    marks, is_corrected = reviewed.marks, verdicts.is_readable & reviewed.is_corrected
    is_usable, verdicts = verdicts.is_readable & ~reviewed.is_dropped, reviewed.after
    kept = kept_although_flagged(verdicts, drop_at=settings.drop_at)
    wrong = marks == "wrong" if settings.labels == "all" else ~clean_part(verdicts, drop_at=settings.drop_at)
    can_relabel = wrong & (verdicts.predicted != verdicts.given) & verdicts.is_readable
    relabelled = can_relabel if settings.labels == "relabel" else is_corrected
    rows = np.flatnonzero(is_usable & (~wrong | relabelled))
    if not len(rows):
        raise DataError(
            f"expected images to train on, but all of {len(verdicts):,} are flagged or unreadable; look at the report, "
            f"or train on all with {setting('labels')} all"
        )
    labels = np.where(relabelled, verdicts.predicted, verdicts.given)
    counts = {
        "images": len(verdicts),
        "used": len(rows),
        "dropped": int((is_usable & wrong & ~relabelled).sum()),
        "relabelled": int((is_usable & relabelled).sum()),
        "kept": 0 if settings.labels == "all" else int((is_usable & kept).sum()),
        "left_out": int((verdicts.is_readable & ~is_usable).sum()),
        "unreadable": int((~verdicts.is_readable).sum()),
        **({} if reviews is None else _mark_counts(marks)),
    }
    return Selection(
        rows=rows,
        labels=labels,
        weights=_weights(verdicts, settings, rows, labels, relabelled),
        counts=counts,
        notes=_empty_class_notes(labels[rows], verdicts.class_names),
    )


def _mark_counts(marks: NDArray[np.str_]) -> dict[str, int]:
    return {f"marked_{mark}": int((marks == mark).sum()) for mark in MARKS}


def _weights(
    verdicts: Verdicts,
    settings: Adaptation,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    relabelled: NDArray[np.bool_],
) -> NDArray[np.float32]:
    weights = np.ones(len(verdicts), dtype=np.float64)
    if settings.weighting == "p_clean":
        # the probability that a new label is right is its confidence
        confidence = np.asarray(pc.fill_null(verdicts.table["predicted_confidence"], 0.0), dtype=np.float64)
        weights = np.where(relabelled, confidence, verdicts.label_quality)
    if settings.class_weights == "balanced":
        sums = np.bincount(labels[rows], weights=weights[rows], minlength=len(verdicts.class_names))
        weights = np.divide(weights, sums[labels], out=np.zeros_like(weights), where=sums[labels] > 0)
    mean = float(weights[rows].mean())
    if not mean > 0:
        raise DataError(
            f"all images that are left have weight 0: the detector believes none; leave out {setting('weighting')}"
        )
    return (weights / mean).astype(np.float32)


def _empty_class_notes(labels: NDArray[np.int64], class_names: Sequence[str]) -> tuple[str, ...]:
    sizes = np.bincount(labels, minlength=len(class_names))
    empty = [class_names[index] for index in np.flatnonzero(sizes == 0).tolist()]
    if not empty:
        return ()
    more = f" and {len(empty) - _MAX_NAMES:,} more" if len(empty) > _MAX_NAMES else ""
    return (
        f"no image is left of {', '.join(empty[:_MAX_NAMES])}{more}: the classifier keeps a place for "
        f"{'it' if len(empty) == 1 else 'them'} but cannot have learned {'it' if len(empty) == 1 else 'them'}; "
        f"look at these in the report, or train with {setting('labels')} relabel or all",
    )
