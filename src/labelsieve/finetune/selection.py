"""What is trained on: rows, labels and weights, out of the verdicts and, where there are any, reviews.

By default the clean part (:func:`labelsieve.review.row_reviews.clean_part`), images whose right label a reviewer named
and flagged images that are more likely right than wrong: those that `labelsieve export --format imagefolder
--drop-at 0.5` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.finetune.settings import Adaptation
from labelsieve.review.row_reviews import (
    MARKS,
    RowReviews,
    after_reviews,
    clean_part,
    corrected,
    dropped_by_reviewers,
    kept_although_flagged,
    marks_of_rows,
)
from labelsieve.verdicts import Verdicts

# Names that a line holds; a list of hundreds is not read.
_NAMED = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The training part of N images.

    Attributes:
        rows: Shape (n,), int64, ascending: the rows to train on.
        labels: Shape (N,), int64: the label to train each row with; those of other rows mean nothing. Of tags (N, K),
            float32: 1, 0, or NaN for a pair of image and class that is left out of the loss.
        weights: Shape (N,), float32, with mean 1 over `rows`.
        counts: How many images there are, and are used, dropped, relabelled, flagged but kept (`kept`), left out by
            reviewers as copies, leaks or defects (`left_out`), unreadable, and marked by a person.
        notes: Remarks for the user, one line each.
    """

    rows: NDArray[np.int64]
    labels: NDArray[Any]
    weights: NDArray[np.float32]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def strata(self) -> NDArray[np.int64]:
        """Shape (N,): what equal shares are held out of: each class; of tags, all images together."""
        return self.labels if self.labels.ndim == 1 else np.zeros(len(self.labels), dtype=np.int64)


def choose(verdicts: Verdicts, settings: Adaptation, *, reviews: RowReviews | None = None) -> Selection:
    """Chooses rows, labels and weights.

    A review counts more than a verdict. Where a reviewer named another class, the image is trained on with that; a
    label that is right stays; one that is wrong drops the image or, with labels `relabel`, gives it the predicted
    label; unsure leaves it to the verdict. See :func:`labelsieve.review.row_reviews.after_reviews`. Copies that
    reviewers left out are not trained on.

    Args:
        verdicts: Of N images.
        settings: `labels`, `drop_at`, `weighting` and `class_weights` of it.
        reviews: Row to what the reviewers say, from :func:`labelsieve.review.row_reviews.read_reviews`.

    Raises:
        DataError: Nothing is left, or a review names a class that there is not.
    """
    said = marks_of_rows(verdicts, reviews or {})
    named = verdicts.is_readable & (corrected(verdicts, reviews or {}) != verdicts.given)
    stays = verdicts.is_readable & ~dropped_by_reviewers(verdicts, reviews)
    verdicts = after_reviews(verdicts, reviews)
    kept = kept_although_flagged(verdicts, drop_at=settings.drop_at)
    wrong = said == "wrong" if settings.labels == "all" else ~clean_part(verdicts, drop_at=settings.drop_at)
    other = wrong & (verdicts.predicted != verdicts.given) & verdicts.is_readable
    relabelled = other if settings.labels == "relabel" else named
    rows = np.flatnonzero(stays & (~wrong | relabelled))
    if not len(rows):
        raise DataError(
            f"expected images to train on, but all of {len(verdicts):,} are flagged or unreadable; look at the report, "
            "or train on all with --labels all"
        )
    labels = np.where(relabelled, verdicts.predicted, verdicts.given)
    numbers = {
        "images": len(verdicts),
        "used": len(rows),
        "dropped": int((stays & wrong & ~relabelled).sum()),
        "relabelled": int((stays & relabelled).sum()),
        "kept": 0 if settings.labels == "all" else int((stays & kept).sum()),
        "left_out": int((verdicts.is_readable & ~stays).sum()),
        "unreadable": int((~verdicts.is_readable).sum()),
        **({} if reviews is None else _marked(said)),
    }
    return Selection(
        rows=rows,
        labels=labels,
        weights=_weights(verdicts, settings, rows, labels, relabelled),
        counts=numbers,
        notes=_emptied(labels[rows], verdicts.class_names),
    )


def _marked(marks: NDArray[np.str_]) -> dict[str, int]:
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
        # a new label is as right as the detector is sure of it
        confidence = np.asarray(pc.fill_null(verdicts.table["predicted_confidence"], 0.0), dtype=np.float64)
        weights = np.where(relabelled, confidence, verdicts.label_quality)
    if settings.class_weights == "balanced":
        sums = np.bincount(labels[rows], weights=weights[rows], minlength=len(verdicts.class_names))
        weights = np.divide(weights, sums[labels], out=np.zeros_like(weights), where=sums[labels] > 0)
    mean = float(weights[rows].mean())
    if not mean > 0:
        raise DataError("all images that are left have weight 0: the detector believes none; leave out --weighting")
    return (weights / mean).astype(np.float32)


def _emptied(labels: NDArray[np.int64], class_names: Sequence[str]) -> tuple[str, ...]:
    left = np.bincount(labels, minlength=len(class_names))
    gone = [class_names[index] for index in np.flatnonzero(left == 0).tolist()]
    if not gone:
        return ()
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    return (
        f"no image is left of {', '.join(gone[:_NAMED])}{more}: the classifier keeps a place for "
        f"{'it' if len(gone) == 1 else 'them'} but cannot have learned {'it' if len(gone) == 1 else 'them'}; "
        "look at these in the report, or train with --labels relabel or all",
    )
