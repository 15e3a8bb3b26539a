"""Images with any number of labels each, called tags here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.images import Images


@dataclass(frozen=True, kw_only=True, eq=False)
class TaggedImages(Images):
    """N images with any number of K classes each; see :class:`labelsieve.data.images.Images` for its other attributes.

    Attributes:
        tags: Shape (N, K), bool: the given tags.
        class_names: The K names, in the order of the columns.
        truth: Shape (N, K), bool, or None: the true tags, if they are known. Used for metrics only.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((3, 32, 32, 3), dtype=np.uint8)
        >>> images = ls.load_tags(pixels, tags=[["cat", "dog"], ["dog"], []])
        >>> images.class_names, images.tags.astype(int).tolist()
        (('cat', 'dog'), [[1, 1], [0, 1], [0, 0]])
    """

    tags: NDArray[np.bool_]
    class_names: tuple[str, ...]
    truth: NDArray[np.bool_] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of images, ids, given tags and class names, which identifies the data of a run."""
        return fingerprint(self.contents, list(self.ids), self.tags, list(self.class_names))

    @property
    def true_tags(self) -> NDArray[np.bool_]:
        """Shape (N, K), bool: the true tags; the given ones if the truth is unknown."""
        return self.tags if self.truth is None else self.truth

    def with_tags(self, tags: NDArray[np.bool_], *, truth: NDArray[np.bool_] | None = None) -> TaggedImages:
        """Returns the same images with other given tags, shape (N, K); `truth`, if passed, replaces the true tags.

        Raises:
            DataError: They are not an array of bool of that shape.
        """
        shape = (len(self), len(self.class_names))
        truth = self.truth if truth is None else checked_tags(truth, shape=shape, what="true tags")
        return replace(self, tags=checked_tags(tags, shape=shape), truth=truth, origin={})

    def names_of(self, row: int) -> tuple[str, ...]:
        """Returns the names of the given tags of one image."""
        return tuple(self.class_names[index] for index in np.flatnonzero(self.tags[row]))


def checked_tags(tags: Any, *, shape: tuple[int, int] | None = None, what: str = "tags") -> NDArray[np.bool_]:
    """Checks an array of tags, and returns it.

    Args:
        tags: The array, of shape (N, K) and type bool.
        shape: N and K, if they are known.
        what: Name of the array, for messages.

    Raises:
        DataError: It has another shape or type.
    """
    values = np.asarray(tags)
    if values.dtype != bool or values.ndim != 2 or (shape is not None and values.shape != shape):
        expected = f"of shape {shape}" if shape is not None else "(N, K)"
        raise DataError(
            f"expected {what} as an array of bool {expected}, one row an image and one column a class, got "
            f"{shown(values.dtype)} of shape {shown(values.shape)}"
        )
    return values
