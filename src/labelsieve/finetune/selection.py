"""What is trained on: rows, labels and weights, out of the verdicts and, where there are any, a person's marks.

By default the clean part (:func:`labelsieve.marks.clean_part`) and the flagged images that are more likely right than
wrong: the images that `labelsieve export --format imagefolder --drop-at 0.5` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.finetune.settings import Adaptation
from labelsieve.marks import after_marks, clean_part, counts, kept_although_flagged, marks_of_rows
from labelsieve.verdicts import Verdicts

# Names that a line holds; a list of hundreds is not read.
_NAMED = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The training part of N images.

    Attributes:
        rows: Shape (n,), int64, ascending: the rows to train on.
        labels: Shape (N,), int64: the label to train each row with; those of other rows mean nothing.
        weights: Shape (N,), float32, with mean 1 over `rows`.
        counts: How many images there are, and are used, dropped, relabelled, flagged but kept (`kept`), unreadable,
            and marked by a person.
        notes: Remarks for the user, one line each.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def choose(verdicts: Verdicts, settings: Adaptation, *, marks: Mapping[str, str] | None = None) -> Selection:
    """Chooses rows, labels and weights.

    A mark counts more than a verdict: `right` keeps the given label; `wrong` drops the image or, with labels `relabel`,
    gives it the predicted label; `unsure` leaves it to the verdict. See :func:`labelsieve.marks.after_marks`.

    Args:
        verdicts: Of N images.
        settings: `labels`, `drop_at`, `weighting` and `class_weights` of it.
        marks: Image id to mark, from :func:`labelsieve.marks.read_marks`.

    Raises:
        DataError: Nothing is left.
    """
    said = marks_of_rows(verdicts, marks or {})
    verdicts = after_marks(verdicts, marks)
    kept = kept_although_flagged(verdicts, drop_at=settings.drop_at)
    wrong = said == "wrong" if settings.labels == "all" else ~clean_part(verdicts, drop_at=settings.drop_at)
    other = wrong & (verdicts.predicted != verdicts.given) & verdicts.is_readable
    relabelled = other if settings.labels == "relabel" else np.zeros_like(other)
    rows = np.flatnonzero(verdicts.is_readable & (~wrong | relabelled))
    if not len(rows):
        raise DataError(
            f"expected images to train on, but all of {len(verdicts):,} are flagged or unreadable; look at the report, "
            "or train on all with --labels all"
        )
    labels = np.where(relabelled, verdicts.predicted, verdicts.given)
    numbers = {
        "images": len(verdicts),
        "used": len(rows),
        "dropped": int((verdicts.is_readable & wrong & ~relabelled).sum()),
        "relabelled": int(relabelled.sum()),
        "kept": 0 if settings.labels == "all" else int(kept.sum()),
        "unreadable": int((~verdicts.is_readable).sum()),
        **({f"marked_{mark}": number for mark, number in counts(marks).items()} if marks is not None else {}),
    }
    return Selection(
        rows=rows,
        labels=labels,
        weights=_weights(verdicts, settings, rows, labels, relabelled),
        counts=numbers,
        notes=_emptied(labels[rows], verdicts.class_names),
    )


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
