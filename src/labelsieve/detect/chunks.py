"""Some rows at a time: how many, the loops over them, and those of each class; `neighbours.py` has its own size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress

# Rows that are scored at a time, and rows that are summed at a time, on which sums depend in their last digits.
CHUNK, SUM_CHUNK = 4096, 8192


def chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yields rows in parts of at most `SUM_CHUNK`, in order."""
    for start in range(0, len(rows), SUM_CHUNK):
        yield rows[start : start + SUM_CHUNK]


def rows_of_classes(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns the positions of each label that occurs, in ascending order of the labels.

    Example:
        >>> [rows.tolist() for rows in rows_of_classes(np.array([2, 0, 2]))]
        [[1], [0, 2]]
    """
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def in_chunks(
    score_rows: Callable[[NDArray[np.int64]], Sequence[Tensor]],
    rows: NDArray[np.int64],
    *,
    progress: Progress | None = None,
) -> list[NDArray[Any]]:
    """Applies a function to some rows at a time, so that no array of N times K is ever held.

    Args:
        score_rows: Takes n row numbers and returns tensors of shape (n,).
        rows: Row numbers, at least one.
        progress: Receives progress.

    Returns:
        What the function returned, each of the shape of `rows`.
    """
    columns: list[NDArray[Any]] = []
    with (progress or Progress()).task("scoring", total=len(rows), unit="images", brief=True) as advance:
        for at in range(0, len(rows), CHUNK):
            chunk = [value.cpu().numpy() for value in score_rows(rows[at : at + CHUNK])]
            # room for all first: what is kept of each chunk would lie between the large arrays that are given up, and
            # keep the allocator from using their room again
            columns = columns or [np.empty(len(rows), dtype=values.dtype) for values in chunk]
            for column, values in zip(columns, chunk, strict=True):
                column[at : at + len(values)] = values
            advance(len(rows[at : at + CHUNK]))
    return columns
