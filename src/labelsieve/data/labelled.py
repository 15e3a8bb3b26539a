"""The common protocol of images and precomputed features: rows with an id and a given label each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.data.annotators import Annotations


class Labelled(Protocol):
    """N rows with a given label each; see :class:`labelsieve.LabelledImages` and :class:`labelsieve.LabelledFeatures`.

    Verdicts, diagnosis and report only use these attributes.
    """

    def __len__(self) -> int: ...

    @property
    def ids(self) -> tuple[str, ...]:
        """N different names of the rows."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape (N,): the given labels, indices into `class_names`."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names."""
        ...

    @property
    def contents(self) -> NDArray[np.uint64]:
        """Shape (N,): a hash of the content of each row; equal rows have equal values."""
        ...

    @property
    def annotations(self) -> Annotations | None:
        """The labels of several annotators, whose majority vote is `labels`; None with one label per row."""
        ...

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """Shape (N,): the true labels, if they are known. Used for metrics only."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """Arguments to load the same rows again; empty for data in memory."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the loader for the user."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of contents, ids, given labels and class names, which identifies the data of a run."""
        ...
