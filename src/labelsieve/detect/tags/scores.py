"""What a detector of tags returns: how likely each class is in each image, and which tags are issues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.flagging import best_threshold

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs

# No state is flagged that is more than twice as likely right as wrong. That is stricter than for one label an image:
# pairs are many, nearly all of them are right, and weak evidence would flag what it merely does not see.
MAX_THRESHOLD = 2 / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class TagScores:
    """What was found out about the pairs of N images and K classes.

    Attributes:
        tags: Shape (N, K), bool: the given tags.
        present: Shape (N, K), float32, between 0 and 1: probability that the class is in the image; rows of NaN where
            the image could not be read.
        thresholds: A given tag is an issue where its quality is at most the first, an absent one where its quality is
            at most the second; None where another rule flags.
        issue: Shape (N, K), bool: given tags that are wrong, and absent ones that are missing.
        omission: Shape (K,), between 0 and 1: estimated share of the images that show the class and lack the tag; NaN
            where the detector estimates none.
        commission: Shape (K,), between 0 and 1: estimated share of the tags of the class that are wrong; NaN as above.
        errors: Row number to reason, for the images that could not be read.
        notes: Remarks for the user.
        history: One record for each round or epoch.
        resolved: What settings of `auto` resolved to, by their names.
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
        """How likely each given state is right, (N, K): `present` where the tag is given, one less it elsewhere."""
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
    """Lays what was found out about the n readable images out over all, and flags.

    Args:
        pairs: The tags.
        present: Shape (n, K), between 0 and 1.
        thresholds: For given and for absent tags; None for those that are expected to give the best F1.
        issue: Shape (n, K), from a rule that no threshold can express; None flags by thresholds.
        omission: See :class:`TagScores`; one number, or one a class.
        commission: The same.
        notes: Remarks for the user.
        history: One record for each round.
    """
    rows, given, classes = pairs.images.rows, pairs.given, pairs.images.classes
    if issue is None:
        if thresholds is None:
            kinds = present[given], 1 - present[~given]
            thresholds = (
                best_threshold(kinds[0], maximum=MAX_THRESHOLD),
                best_threshold(kinds[1], maximum=MAX_THRESHOLD),
            )
        # float32 on both sides, as a threshold may be one of the values
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
