"""Processing rows in chunks, and grouping them by class; `neighbours.py` has its own chunk size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress

# Number of rows to score at a time, and to sum at a time; the latter affects the last digits of sums.
CHUNK, SUM_CHUNK = 4096, 8192


def chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yields the rows in order, in chunks of at most `SUM_CHUNK`."""
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
    """Applies a function to rows in chunks, so that it never needs an array of N times K.

    Args:
        score_rows: Function from n row numbers to tensors of shape (n,).
        rows: Row numbers, at least one.
        progress: Receives progress.

    Returns:
        The concatenated results of the function, each with the shape of `rows`.
    """
    columns: list[NDArray[Any]] = []
    with (progress or Progress()).task("scoring", total=len(rows), unit="images", brief=True) as advance:
        for at in range(0, len(rows), CHUNK):
            chunk = [value.cpu().numpy() for value in score_rows(rows[at : at + CHUNK])]
            # allocated before the loop: small results between large temporary arrays would fragment the memory and keep
            # the allocator from reusing it
            columns = columns or [np.empty(len(rows), dtype=values.dtype) for values in chunk]
            for column, values in zip(columns, chunk, strict=True):
                column[at : at + len(values)] = values
            advance(len(rows[at : at + CHUNK]))
    return columns
