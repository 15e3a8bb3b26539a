"""The labels of several annotators, one column each, and their majority vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.labels import LabelColumn, normalise, to_indices

# Number of decimals to which sums of weights are rounded, so that they do not depend on the order of summation.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """The labels that A annotators gave N images.

    Attributes:
        names: Names of the A annotators: their column names.
        labels: Shape (N, A), int64: indices into the class names, -1 where an annotator gave none.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Annotations:
        """Returns the labels of the given images, in that order."""
        return replace(self, labels=self.labels[rows])

    @property
    def fingerprint(self) -> str:
        """Fingerprint of names and labels."""
        return fingerprint(self.labels, list(self.names))


def merged(columns: Sequence[LabelColumn], ids: Sequence[str]) -> LabelColumn:
    """Concatenates the labels of all annotators into one column, and drops missing labels.

    Raises:
        DataError: A column has no labels, columns have different classes, or an image has no label.
    """
    for column in columns:
        if not (column.codes >= 0).any():
            raise DataError(f"expected labels in {column.where}, found none; leave the annotator out")
    _check_classes(columns)
    missing = np.flatnonzero(np.all([column.codes < 0 for column in columns], axis=0))
    where = f"the {len(columns)} label columns"
    if len(missing):
        raise DataError(
            f'{len(missing)} of {len(ids)} images have no label in any of {where} (first: id "{shown(ids[missing[0]])}"'
            "); fill one in or remove these rows"
        )
    values = tuple(dict.fromkeys(value for column in columns for value in column.values))
    position = {value: index for index, value in enumerate(values)}
    codes = [
        np.array([position[value] for value in column.values])[column.codes[column.codes >= 0]] for column in columns
    ]
    first = next((column for column in columns if column.class_names is not None), columns[0])
    return replace(first, where=where, values=values, codes=np.concatenate(codes))


def _check_classes(columns: Sequence[LabelColumn]) -> None:
    """Raises a `DataError` if stated classes differ between columns, or if a column shares no label with the others."""
    stated = [column for column in columns if column.class_names is not None]
    for column in stated[1:]:
        expected, actual = ({normalise(name) for name in each.class_names or ()} for each in (stated[0], column))
        if expected != actual:
            raise DataError(
                f"expected the same classes in all label columns, found {listed(stated[0].class_names or ())} in "
                f"{stated[0].where} and {listed(column.class_names or ())} in {column.where}; leave one out"
            )
    used = [{normalise(str(value)) for value in column.values} for column in columns]
    for number, column in enumerate(columns):
        other_names = set().union(*(names for index, names in enumerate(used) if index != number))
        if not used[number] & other_names:
            raise DataError(
                f"expected the same classes in all label columns, but none of {listed(map(str, column.values))} in "
                f"{column.where} is in another of them; leave it out or write the classes alike"
            )


def without_gaps(column: LabelColumn) -> LabelColumn:
    """Returns a column in which -1 is a missing label, provided that all values are integers."""
    gaps = [index for index, value in enumerate(column.values) if str(value) == "-1"]
    numbers = all(str(value).removeprefix("-").isdecimal() for value in column.values)
    if not gaps or not numbers:
        return column
    present_values = [index for index in range(len(column.values)) if index not in gaps]
    table = np.full(len(column.values) + 1, -1, dtype=np.int64)
    table[present_values] = np.arange(len(present_values))
    return replace(column, values=tuple(column.values[index] for index in present_values), codes=table[column.codes])


def indices_of(
    columns: Sequence[LabelColumn],
    *,
    class_names: Sequence[str],
    ids: Sequence[str],
    by_number: bool,
    former: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Returns the labels of A annotators as indices into the class names, (N, A), -1 for missing labels.

    Args:
        columns: The A columns of N labels, with codes of -1 for missing labels.
        class_names: The K names.
        ids: The N ids, for messages.
        by_number: See :func:`labelsieve.data.labels.to_indices`.
        former: See :func:`labelsieve.data.labels.to_indices`.

    Raises:
        DataError: A label is not among the class names.
    """
    result = np.full((len(ids), len(columns)), -1, dtype=np.int64)
    for number, column in enumerate(columns):
        labelled = np.flatnonzero(column.codes >= 0)
        present = replace(column, codes=column.codes[labelled])
        named = [ids[row] for row in labelled.tolist()]
        result[labelled, number] = to_indices(
            present, class_names=class_names, ids=named, by_number=by_number, former=former
        )
    return result


def vote(annotations: NDArray[np.int64], *, classes: int) -> NDArray[np.int64]:
    """Returns the majority vote of the annotators for each image, (N,).

    Ties go to the label whose annotators agree more often with clear votes on other images, then to the more frequent
    label, then to the lower index. The result does not depend on the order of the annotators.

    Args:
        annotations: Shape (N, A), at least one label per row, -1 where an annotator gave none.
        classes: K.

    Example:
        >>> vote(np.array([[0, 0, 1], [1, 1, -1], [0, 0, 1], [-1, 0, 1]]), classes=2).tolist()
        [0, 1, 0, 0]
    """
    rows, who = np.nonzero(annotations >= 0)
    votes, images = annotations[rows, who], len(annotations)
    keys, inverse, counts = np.unique(rows * classes + votes, return_inverse=True, return_counts=True)
    image, label = np.divmod(keys, classes)
    max_votes = np.zeros(images, dtype=np.int64)
    np.maximum.at(max_votes, image, counts)
    top = counts == max_votes[image]
    clear = (np.bincount(image[top], minlength=images) == 1) & (max_votes > 1)
    winner = np.full(images, -1, dtype=np.int64)
    winner[image[top]] = label[top]
    is_clear, agrees = clear[rows], clear[rows] & (winner[rows] == votes)
    annotators = annotations.shape[1]
    weights = (np.bincount(who[agrees], minlength=annotators) + 1) / (
        np.bincount(who[is_clear], minlength=annotators) + 2
    )
    score = np.bincount(inverse, weights=weights[who]).round(_DECIMALS)
    frequent = np.bincount(votes, minlength=classes)
    order = np.lexsort((label, -frequent[label], -score, -counts, image))
    _, first = np.unique(image[order], return_index=True)
    return np.asarray(label[order][first])
