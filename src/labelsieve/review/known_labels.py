"""The labels of a run that are known from the answers of reviewers, by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.data.labels import normalise
from labelsieve.review.state import Reviews
from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """The known labels among N; the label of an unreadable image is never known.

    Attributes:
        is_decided: Shape (N,): labels that are known to be right or wrong.
        is_wrong: Shape (N,): labels that are known to be wrong.
        is_audited: Shape (N,): images that were shown in an audit.
        is_closed: Shape (N,): images that need no further review: decided, left undecided by a reviewer, or skipped in
            an audit.
    """

    is_decided: NDArray[np.bool_]
    is_wrong: NDArray[np.bool_]
    is_audited: NDArray[np.bool_]
    is_closed: NDArray[np.bool_]


def known_labels(verdicts: Verdicts, reviews: Reviews, *, contents: NDArray[np.uint64] | None = None) -> Known:
    """Returns the labels of a run that are known from answers.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        contents: Shape (N,): hashes of the images. Copies of an image share its answer, each with its own given label.
            None: an answer is matched by the id of its image, if the given label is still the same.
    """
    audited = {answer.key for answer in reviews.standing if answer.mode == "audit"}
    masks = [np.zeros(len(verdicts), dtype=np.bool_) for _ in range(4)]
    is_decided, is_wrong, is_audited, is_closed = masks
    for row, key in rows_and_keys(verdicts, reviews, contents=contents):
        if not verdicts.is_readable[row]:
            continue
        resolved = reviews.by_key.get(key)
        right = None if resolved is None else resolved.is_right(verdicts.given_label(row))
        is_audited[row] = key in audited
        is_decided[row], is_wrong[row] = right is not None, right is False
        is_closed[row] = key in audited or resolved is not None
    return Known(is_decided=is_decided, is_wrong=is_wrong, is_audited=is_audited, is_closed=is_closed)


def rows_and_keys(
    verdicts: Verdicts, reviews: Reviews, *, contents: NDArray[np.uint64] | None
) -> Iterator[tuple[int, str]]:
    """Yields the rows of images that were answered or skipped, each with the key of its answers.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        contents: See :func:`known_labels`.
    """
    return _by_id(verdicts, reviews) if contents is None else _by_content(reviews, contents)


def count_images(
    verdicts: Verdicts, reviews: Reviews, keys: Collection[str], *, contents: NDArray[np.uint64] | None
) -> int:
    """Returns the number of images, including copies, whose answers have one of the `keys`.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        keys: Keys of answers.
        contents: See :func:`known_labels`.
    """
    return sum(key in keys for _, key in rows_and_keys(verdicts, reviews, contents=contents))


def _by_content(reviews: Reviews, contents: NDArray[np.uint64]) -> Iterator[tuple[int, str]]:
    keys = sorted({answer.key for answer in reviews.standing})
    if not keys:
        return
    hashes = np.array([int(key, 16) for key in keys], dtype=np.uint64)  # sorted, like the keys
    positions = np.minimum(np.searchsorted(hashes, contents), len(keys) - 1)
    for row in np.flatnonzero(hashes[positions] == contents).tolist():
        yield row, keys[positions[row]]


def _by_id(verdicts: Verdicts, reviews: Reviews) -> Iterator[tuple[int, str]]:
    latest = {answer.id: answer for answer in reviews.standing}
    rows = pc.index_in(pa.array(list(latest), pa.string()), value_set=verdicts.table["id"].combine_chunks())
    for row, answer in zip(rows.to_pylist(), latest.values(), strict=True):
        if row is not None and normalise(verdicts.given_label(row)) == normalise(answer.given_label):
            yield row, answer.key
