"""Base classes of images and precomputed features: rows with an id, and rows that also have a given label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.provenance import fingerprint
from labelsieve.data.annotators import Annotations
from labelsieve.data.labels import checked_indices

# Fields of a record with one value per row.
_BY_ROW = ("dataset", "ids", "contents", "labels", "truth", "annotations", "boxes", "tags", "features")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """N rows of images or features, with or without a label.

    Attributes:
        ids: N unique names of the rows.
        contents: Shape (N,), uint64: a hash of the content of each row; equal rows have equal hashes.
        origin: Arguments to load the same rows again; empty for data in memory.
        notes: Notes of the loader for the user, one line each.
    """

    ids: tuple[str, ...]
    contents: NDArray[np.uint64]
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Returns the given rows, in that order, with all classes kept.

        The result has no `origin`, which would load all rows again.
        """
        values = {name: getattr(self, name, None) for name in _BY_ROW}
        taken = {name: _taken(value, rows) for name, value in values.items() if value is not None}
        return replace(self, **taken, origin={})


def _taken(values: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(values, np.ndarray):
        return values[rows]
    if isinstance(values, tuple):
        return tuple(values[row] for row in rows)
    return values.select(rows) if hasattr(values, "select") else values.take(rows)  # a data set, or a record


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled(Rows):
    """N rows with a given label each; see :class:`labelsieve.LabelledImages` and :class:`labelsieve.LabelledFeatures`.

    Verdicts, diagnosis and report only use these attributes, and those of :class:`Rows`.

    Attributes:
        labels: Shape (N,), int64, values 0 to K-1: the given labels, indices into `class_names`.
        class_names: The K names, in the order of the indices.
        truth: Shape (N,), int64, or None: the true labels, if they are known. Used for metrics only.
        annotations: The labels of several annotators, whose majority vote is `labels`; None with one label per row.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    truth: NDArray[np.int64] | None = None
    annotations: Annotations | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of contents, ids, given labels and class names, which identifies the data of a run."""
        several = [] if self.annotations is None else [self.annotations.fingerprint]
        return fingerprint(self.contents, list(self.ids), self.labels, list(self.class_names), *several)

    @property
    def true_labels(self) -> NDArray[np.int64]:
        """Shape (N,): the true labels; the given ones if the truth is unknown."""
        return self.labels if self.truth is None else self.truth

    def with_labels(self, labels: NDArray[np.int64], *, truth: NDArray[np.int64] | None = None) -> Self:
        """Returns the same rows with other given labels, shape (N,); `truth`, if passed, replaces the true labels."""
        shape: dict[str, Any] = {"count": len(self), "class_names": self.class_names}
        truth = self.truth if truth is None else checked_indices(truth, what="true labels", **shape)
        given_labels = checked_indices(labels, what="labels", **shape)
        return replace(self, labels=given_labels, truth=truth, annotations=None, origin={})
