"""Boxes of one image that overlap almost fully and have different labels: at most one of the labels is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.curation.duplicates import Copies, groups
from labelsieve.curation.findings import SAME_BOX
from labelsieve.curation.search import Search, copy_table

if TYPE_CHECKING:
    from labelsieve.data.boxes import Boxes

MIN_IOU = 0.9
"""Minimum intersection over union of two boxes of one object; stricter than in evaluations of object detectors."""
# Number of boxes compared at a time.
_CHUNK = 512


def find_same_boxes(search: Search) -> Iterator[pa.Table]:
    """Yields pairs of boxes with different labels that are nearly the same, the most certain first."""
    boxes = getattr(search.data, "boxes", None)
    if boxes is None:
        return
    copies = conflicting_boxes(boxes, search.data.labels, rows=search.inputs.rows)
    yield copy_table(SAME_BOX, search.data, copies, group=groups(len(boxes), [copies]))


def conflicting_boxes(boxes: Boxes, labels: NDArray[np.int64], *, rows: NDArray[np.int64]) -> Copies:
    """Returns the most overlapping box with another label for each box that has one, and the intersection over union.

    Args:
        boxes: N boxes.
        labels: Shape (N,): the given labels.
        rows: The boxes to compare.

    Example:
        >>> import numpy as np
        >>> from labelsieve.curation.same_boxes import conflicting_boxes
        >>> from labelsieve.data.boxes import Boxes
        >>> sides = np.array([[0.0, 0, 100, 100], [0, 0, 100, 98], [50, 50, 100, 100]])
        >>> boxes = Boxes(sides=sides, image_of=np.zeros(3, dtype=np.int64))
        >>> found = conflicting_boxes(boxes, np.array([0, 1, 2]), rows=np.arange(3))
        >>> found.rows.tolist(), found.others.tolist(), round(float(found.similarity[0]), 2)
        ([0, 1], [1, 0], 0.98)
    """
    ordered = boxes.by_image(rows)
    by_image = np.split(ordered, np.flatnonzero(np.diff(boxes.image_of[ordered])) + 1)
    mixed = [image_rows for image_rows in by_image if len(image_rows) > 1 and len(np.unique(labels[image_rows])) > 1]
    pairs = [_within(image_rows, boxes.sides, labels) for image_rows in mixed]
    table = np.concatenate([*pairs, np.empty((3, 0))], axis=1)
    table = table[:, np.argsort(table[0], kind="stable")]
    rows, others = table[:2].astype(np.int64)
    return Copies(rows=rows, others=others, similarity=table[2].astype(np.float32))


def _within(rows: NDArray[np.int64], sides: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns rows, others and their overlap, (3, n), of the boxes of one image."""
    chunks = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        overlap = overlaps(sides[chunk], sides[rows])
        overlap[labels[chunk][:, None] == labels[rows]] = 0
        best = overlap.argmax(axis=1)
        value = overlap[np.arange(len(chunk)), best]
        chunks.append(np.stack([chunk, rows[best], value])[:, value >= MIN_IOU])
    return np.concatenate(chunks, axis=1)


def overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns intersection over union of boxes, (n, 4) and (m, 4) of left, top, width and height: (n, m)."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[:, :2] + second[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    return np.asarray(common / (first[:, None, 2:].prod(axis=2) + second[:, 2:].prod(axis=1) - common))
