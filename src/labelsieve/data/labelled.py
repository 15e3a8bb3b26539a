"""What images and features computed before have in common: rows with an id and a given label each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.data.annotators import Annotations


class Labelled(Protocol):
    """N rows with a given label each; see :class:`labelsieve.LabelledImages` and :class:`labelsieve.LabelledFeatures`.

    Verdicts, diagnosis and report need no more than this.
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
        """Shape (N,): a hash of what each row holds; equal rows have equal values."""
        ...

    @property
    def annotations(self) -> Annotations | None:
        """The labels of several annotators, of which the given ones are the vote; None where there is one label."""
        ...

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """Shape (N,): the true labels where they are known. Only metrics read them."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """What to load the same rows again with; empty for data in memory."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks of the loader for the user."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of contents, ids, given labels and class names: what a run belongs to."""
        ...
