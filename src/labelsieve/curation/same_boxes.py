"""Boxes that lie upon one another in one image and have different labels: at most one of the labels is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.curation.duplicates import Copies, groups
from labelsieve.curation.findings import SAME_BOX, finding_table

if TYPE_CHECKING:
    from labelsieve.curation.search import Search
    from labelsieve.data.boxes import Boxes

SAME = 0.9
"""From this share of intersection in union on two boxes are one; tighter than what evaluations of detectors ask for."""
# Boxes of one image that are compared at a time.
_CHUNK = 512


def find_same_boxes(search: Search) -> Iterator[pa.Table]:
    """Yields pairs of boxes with different labels that are nearly the same, the surest first."""
    boxes = getattr(search.data, "boxes", None)
    if boxes is None:
        return
    found = conflicts(boxes, search.data.labels, rows=search.inputs.rows)
    order = np.argsort(-found.similarity, kind="stable")
    ids = search.data.ids
    yield finding_table(
        SAME_BOX,
        [ids[row] for row in found.rows[order]],
        score=found.similarity[order],
        other_id=[ids[row] for row in found.others[order]],
        group=groups(len(ids), [found])[found.rows[order]],
    )


def conflicts(boxes: Boxes, labels: NDArray[np.int64], *, rows: NDArray[np.int64]) -> Copies:
    """Returns for each box that has such another one the nearest of them, and the intersection in their union.

    Args:
        boxes: N boxes.
        labels: Shape (N,): the given labels.
        rows: The boxes to look at.

    Example:
        >>> import numpy as np
        >>> from labelsieve.curation.same_boxes import conflicts
        >>> from labelsieve.data.boxes import Boxes
        >>> sides = np.array([[0.0, 0, 100, 100], [0, 0, 100, 98], [50, 50, 100, 100]])
        >>> boxes = Boxes(sides=sides, image_of=np.zeros(3, dtype=np.int64))
        >>> found = conflicts(boxes, np.array([0, 1, 2]), rows=np.arange(3))
        >>> found.rows.tolist(), found.others.tolist(), round(float(found.similarity[0]), 2)
        ([0, 1], [1, 0], 0.98)
    """
    ordered = boxes.by_image(rows)
    parts = np.split(ordered, np.flatnonzero(np.diff(boxes.image_of[ordered])) + 1)
    several = [part for part in parts if len(part) > 1 and len(np.unique(labels[part])) > 1]
    found = [_within(part, boxes.sides, labels) for part in several]
    whole = np.concatenate([*found, np.empty((3, 0))], axis=1)
    whole = whole[:, np.argsort(whole[0], kind="stable")]
    rows, others = whole[:2].astype(np.int64)
    return Copies(rows=rows, others=others, similarity=whole[2].astype(np.float32))


def _within(rows: NDArray[np.int64], sides: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns rows, others and their overlap, (3, n), of the boxes of one image."""
    parts = []
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        overlap = overlaps(sides[some], sides[rows])
        overlap[labels[some][:, None] == labels[rows]] = 0
        best = overlap.argmax(axis=1)
        value = overlap[np.arange(len(some)), best]
        parts.append(np.stack([some, rows[best], value])[:, value >= SAME])
    return np.concatenate(parts, axis=1)


def overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns intersection over union of boxes, (n, 4) and (m, 4) of left, top, width and height: (n, m)."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[:, :2] + second[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    return np.asarray(common / (first[:, None, 2:].prod(axis=2) + second[:, 2:].prod(axis=1) - common))
