"""Reads ids, given labels and true labels from the columns of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.annotators import Annotations, indices_of, merged, vote, without_gaps
from labelsieve.data.labels import LabelColumn, check_complete, read_labels, renamed, resolve_class_names, to_indices
from labelsieve.data.sources.column_kinds import kind_of
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.image_paths import relative_path

if TYPE_CHECKING:
    from datasets import Dataset


class TableLabels(NamedTuple):
    """Class names, given labels (N,), true labels (N,) or None, a note on the class names, and annotations."""

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    truth: NDArray[np.int64] | None
    note: str
    annotations: Annotations | None


def read_table_labels(
    table: Table,
    ids: Sequence[str],
    *,
    labels: Any,
    class_names: Sequence[str] | str | Path | None,
    one_class: bool = False,
) -> TableLabels:
    """Reads the labels of a table, and its true labels if there are any, as indices into class names.

    Args:
        table: A table of N rows.
        ids: The N ids, for messages.
        labels: The N labels, names or integers, if the table has no column of labels.
        class_names: See :func:`labelsieve.data.labels.resolve_class_names`.
        one_class: Whether one class is enough, instead of two.
    """
    columns = [without_gaps(_label_column(table, each, labels=None)) for each in table.columns.annotators]
    given_column = merged(columns, ids) if columns else _label_column(table, table.columns.label, labels=labels)
    if not columns:
        check_complete(given_column, ids)  # first, because class names may come from the labels
    names, note = resolve_class_names(given_column, class_names, one_class=one_class)
    stated = class_names is not None or given_column.class_names is not None
    former = renamed(given_column, names)
    annotations: Annotations | None = None
    if columns:
        labels_of_all = indices_of(columns, class_names=names, ids=ids, by_number=stated, former=former)
        indices = vote(labels_of_all, classes=len(names))
        annotations = Annotations(names=table.columns.annotators, labels=labels_of_all)
        note += f"; the given label of each image is the vote of {len(columns)} annotators"
    else:
        indices = to_indices(given_column, class_names=names, ids=ids, by_number=stated, former=former)
    if table.columns.truth is None:
        return TableLabels(names, indices, None, note, annotations)
    true = _label_column(table, table.columns.truth, labels=None)
    truth = to_indices(true, class_names=names, ids=ids, by_number=stated, former=former)
    return TableLabels(names, indices, truth, note, annotations)


def labels_in_memory(labels: Any, table: Table) -> Any:
    """Returns labels that were passed as an array or a list.

    Raises:
        DataError: There is not exactly one label per row of the table.
    """
    expected = f"expected {len(table.rows)} labels, one for each {'row' if table.columns.image is None else 'image'}"
    if isinstance(labels, str | bytes) or not np.iterable(labels):
        raise DataError(f"{expected}, got {shown(repr(labels))}; pass a list or an array of them")
    values = np.asarray(labels) if hasattr(labels, "__array__") else list(labels)
    if len(values) != len(table.rows):
        raise DataError(f"{expected}, got {len(values)}")
    return values


def read_ids(table: Table, paths: list[str] | None, notes: list[str]) -> list[str]:
    """Returns the ids: the column `id`, else the relative paths, else row numbers, whichever is unique.

    Args:
        table: A table of N rows.
        paths: The N paths of the images; None if the table contains the images, or if rows are boxes.
        notes: Receives notes on ids that are not unique.
    """
    named = table.columns.id
    if named is not None:
        feature, where = table.rows.features[named], f'the column "{named}" of {table.where}'
        values = _plain_values(arrow_column(table.rows, named), feature, where).to_pylist()
        ids = ["" if value is None else str(value) for value in values]
        remark = _repeats(ids, "value")
        if not remark:
            return ids
        instead = "row numbers" if paths is None else "paths"
        notes.append(f'the column "{shown(named)}" gives no ids: {remark}; ids are {instead}')
    if paths is not None:
        root = str(table.folder or ".")
        ids = [relative_path(path, root) for path in paths]
        remark = _repeats(ids, "image")
        if not remark:
            return ids
        notes.append(f"{remark}, so ids are row numbers")
    return [f"{row:07d}" for row in range(len(table.rows))]


def _repeats(ids: Sequence[str], what: str) -> str:
    """Returns a remark on empty or duplicate ids; an empty string if there are none."""
    if "" in ids:
        return f"it is empty in {ids.count('')} rows (first: row {ids.index('') + 1})"
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if not twice:
        return ""
    rows = [row + 1 for row, name in enumerate(ids) if name == twice[0]]
    listed = counted(len(twice), f"{what} is listed", f"{what}s are listed")
    return f'{listed} more than once (first: "{shown(twice[0])}" in rows {rows[0]} and {rows[1]})'


def arrow_column(rows: Dataset, name: str) -> Any:
    """Returns one column of the selected rows as an Arrow array."""
    return rows.select_columns([name]).with_format("arrow")[:].column(0)


def _plain_values(values: Any, feature: Any, where: str) -> Any:
    """Converts labels or ids: bytes to texts, lists of a single value to that value, and decimals to floats.

    Raises:
        DataError: They are lists of several values, bytes that are not text, or of a type without a conversion.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, values.type
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        counts = np.asarray(pc.fill_null(pc.list_value_length(values), 1))
        if (counts != 1).any():
            row = int(np.flatnonzero(counts != 1)[0])
            raise DataError(
                f"expected one label a row in {where}, found {counts[row]} in row {row + 1}; a label is one class, so "
                "choose one, or name another column with --label-column; for several use: labelsieve scan-tags"
            )
        values = pc.list_element(values, 0)
    kind = values.type
    if types.is_decimal(kind):
        return values.cast(pa.float64())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        try:  # the encoding is checked by the cast
            if types.is_fixed_size_binary(kind):  # zero bytes pad shorter texts
                return pc.utf8_rtrim(values.cast(pa.binary()).cast(pa.string()), characters="\0")
            return values.cast(pa.string())
        except pa.ArrowInvalid:
            raise DataError(f"expected texts in UTF-8 in {where}, found other bytes; write names as texts") from None
    if types.is_nested(kind) or types.is_temporal(kind):
        raise DataError(
            f"expected one name or integer a row in {where}, found {kind_of(feature)}; name another column with "
            f"{setting('label_column')}"
        )
    return values


def _label_column(table: Table, name: str | None, *, labels: Any) -> LabelColumn:
    if name is None:
        return read_labels(labels_in_memory(labels, table), where="labels")
    feature, where = table.rows.features[name], f'the column "{name}" of {table.where}'
    values = _plain_values(arrow_column(table.rows, name), feature, where)
    if table.class_names is not None:
        return read_labels(values, where=where, names_of_integers=table.class_names, names_from="the class folders")
    if type(feature).__name__ == "ClassLabel" and feature.names:
        origin = f'the ClassLabel column "{name}"' if table.boxes is None else table.where
        return read_labels(values, where=where, names_of_integers=feature.names, names_from=origin)
    return read_labels(values, where=where)
