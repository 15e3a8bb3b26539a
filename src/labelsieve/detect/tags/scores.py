"""The output of a detector of tags: how likely each class is in each image, and which tags are issues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.flagging import best_threshold

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs

# Maximum quality of a flagged state. It is stricter than for one label per image: nearly all of the many pairs are
# right, and weak evidence would flag whatever it does not see.
MAX_THRESHOLD = 2 / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class TagScores:
    """The results for the pairs of N images and K classes.

    Attributes:
        tags: Shape (N, K), bool: the given tags.
        present: Shape (N, K), float32, between 0 and 1: probability that the class is in the image; NaN if the image
            could not be read.
        thresholds: A given tag is an issue if its quality is at most the first threshold, an absent tag if its quality
            is at most the second; None if another rule flags.
        issue: Shape (N, K), bool: given tags that are wrong, and absent ones that are missing.
        omission: Shape (K,), between 0 and 1: estimated share of the images with the class that lack the tag; NaN if
            the detector does not estimate it.
        commission: Shape (K,), between 0 and 1: estimated share of wrong tags among those of the class; NaN as above.
        errors: Reasons by row number, for the images that could not be read.
        notes: Remarks for the user.
        history: One record per round or epoch.
        resolved: Resolved values of `auto` by the names of the settings.
    """

    tags: NDArray[np.bool_]
    present: NDArray[np.float32]
    thresholds: tuple[float, float] | None
    issue: NDArray[np.bool_]
    omission: NDArray[np.float64]
    commission: NDArray[np.float64]
    errors: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    history: Sequence[Mapping[str, Any]] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quality(self) -> NDArray[np.float32]:
        """Probability that each given state is right, (N, K): `present` if the tag is given, else `1 - present`."""
        return np.where(self.tags, self.present, 1 - self.present)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Given tags that are issues, (N, K)."""
        return self.issue & self.tags

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Absent tags that are issues, (N, K)."""
        return self.issue & ~self.tags


def tag_scores(
    pairs: TagInputs,
    present: NDArray[np.float32],
    *,
    thresholds: tuple[float, float] | None = None,
    issue: NDArray[np.bool_] | None = None,
    omission: Any = np.nan,
    commission: Any = np.nan,
    notes: tuple[str, ...] = (),
    history: Sequence[Mapping[str, Any]] = (),
) -> TagScores:
    """Returns scores of all images from those of the n readable images, and flags issues.

    Args:
        pairs: The tags.
        present: Shape (n, K), between 0 and 1.
        thresholds: For given and for absent tags; None for those with the best expected F1.
        issue: Shape (n, K), for a rule without thresholds; None to flag by thresholds.
        omission: See :class:`TagScores`; one number, or one per class.
        commission: The same.
        notes: Remarks for the user.
        history: One record per round or epoch.
    """
    rows, given, classes = pairs.images.rows, pairs.given, pairs.images.classes
    if issue is None:
        if thresholds is None:
            kinds = present[given], 1 - present[~given]
            thresholds = (
                best_threshold(kinds[0], maximum=MAX_THRESHOLD),
                best_threshold(kinds[1], maximum=MAX_THRESHOLD),
            )
        # float32 on both sides, because a threshold may be one of the values
        issue = np.where(given, present <= np.float32(thresholds[0]), 1 - present <= np.float32(thresholds[1]))
    all_readable = len(rows) == len(pairs.tags)
    return TagScores(
        tags=pairs.tags,
        present=present if all_readable else _laid_out(present, rows, len(pairs.tags), np.nan),
        thresholds=thresholds,
        issue=issue if all_readable else _laid_out(issue, rows, len(pairs.tags), False),
        omission=np.broadcast_to(np.asarray(omission, dtype=np.float64), classes).copy(),
        commission=np.broadcast_to(np.asarray(commission, dtype=np.float64), classes).copy(),
        errors=dict(pairs.images.features.errors),
        notes=(*_notes(pairs), *notes),
        history=tuple(history),
    )


def _laid_out(values: NDArray[Any], rows: NDArray[np.int64], images: int, empty: Any) -> NDArray[Any]:
    laid = np.full((images, values.shape[1]), empty, dtype=values.dtype)
    laid[rows] = values
    return laid


def _notes(pairs: TagInputs) -> tuple[str, ...]:
    from labelsieve.core.errors import listed

    names, count = np.array(pairs.images.class_names, dtype=object), pairs.given.sum(axis=0)
    problems = {
        "no image has the tag": names[count == 0],
        "every image has the tag": names[count == len(pairs.given)],
    }
    return tuple(
        f"{text} {listed(which, quoted=True)}, so that nothing can be learned of it from images"
        for text, which in problems.items()
        if len(which)
    )
