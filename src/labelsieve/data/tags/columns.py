"""The tags of a table: lists of names, texts of several names, or columns of 0 and 1."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, listed, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.labels import LabelColumn, read_labels
from labelsieve.data.sources.column_kinds import ID_TYPES, element_of, holds_text, kind_of
from labelsieve.data.sources.columns import LABEL_NAMES, Table, is_usual, no_guess
from labelsieve.data.sources.folder_layout import is_named_as_split
from labelsieve.data.sources.table_labels import arrow_column

TAG_NAMES = (
    "tags", "tag", "classes", "categories", "objects", "attributes", "findings", "finding_labels", "keywords",
    *LABEL_NAMES, "targets", "tag_names", "label_names", "class_names",
)  # fmt: skip
SEPARATORS = ("|", ";", ",")
"""Separators of tags in a text that can be guessed; others have to be passed."""
_COLUMN = "tag_column"
ONE_LABEL = "for one label per image use: labelsieve scan"
_YES, _NO = ("1", "true", "1.0"), ("0", "false", "0.0")
# Lists, tuples and sets as JSON or Python writes them, unlike names in parentheses.
_WRITTEN = re.compile(r"""\[.*\]|[({]\s*(['"\d].*)?[)}]|set\(\)""", re.DOTALL)


@dataclass(frozen=True, kw_only=True, eq=False)
class TagLists:
    """The tags of N images, as read, in one sequence.

    Attributes:
        rows: Shape (M,), int64: the row of each tag, ascending.
        labels: The M tags, none of them missing.
        notes: Remarks for the user.
        is_table: Whether the source has a value of 0 or 1 per class.
    """

    rows: NDArray[np.int64]
    labels: LabelColumn
    notes: tuple[str, ...] = ()
    is_table: bool = False


def guess_tag_columns(features: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Returns the column of tags or, if there is none, all columns that may be one class each.

    A column of lists is preferred, first one with a common name; then a column of texts with a common name.

    Raises:
        DataError: No column or several columns match, or the column has one label per row.
    """
    lists = [name for name, feature in features.items() if holds_tags(feature)]
    fitting = [name for name in lists if is_usual(name, TAG_NAMES)] or lists
    usual = [name for name in features if is_usual(name, TAG_NAMES)]
    fitting = fitting or [name for name in usual if holds_text(features[name])]
    candidates = [name for name, feature in features.items() if _may_be_class(feature) and name != "id"]
    if not fitting and usual:
        raise DataError(
            f"expected several labels per image in {where}, found {kind_of(features[usual[0]])} in "
            f'"{shown(usual[0])}"; {ONE_LABEL}, or name another column with {setting(_COLUMN)}'
        )
    if len(fitting) > 1 or (not fitting and len(candidates) < 2):
        raise DataError(no_guess("a column of tags", fitting, TAG_NAMES, _COLUMN, where=where, columns=features))
    return tuple(fitting) or tuple(candidates)


def holds_tags(feature: Any) -> bool:
    """Returns whether a column has a list of names or integers per row."""
    inner = element_of(feature)
    kind = str(getattr(inner, "dtype", ""))
    return type(inner).__name__ in ("Value", "ClassLabel") and kind.startswith(ID_TYPES)


def _may_be_class(feature: Any) -> bool:
    kinds = ("bool", "int", "uint", "float", "string", "large_string")
    return type(feature).__name__ == "Value" and str(feature.dtype).startswith(kinds)


def read_tag_column(table: Table, name: str, *, separator: str | None, classes: int | None) -> TagLists:
    """Reads a column of lists, or of texts of several names.

    Args:
        table: The table.
        name: The column.
        separator: The separator of tags in a text; None to guess it.
        classes: Number of class names that were passed, or None.

    Raises:
        DataError: The column has other values, or the separator is ambiguous.
        SettingsError: A separator was passed, but the column has lists.
    """
    feature, where = table.rows.features[name], f'the column "{shown(name)}" of {table.where}'
    values = arrow_column(table.rows, name)
    if holds_tags(feature):
        if separator is not None:
            raise SettingsError(f"a separator goes with texts, and {where} holds {kind_of(feature)}; leave it out")
        return _of_lists(values, where, getattr(element_of(feature), "names", None), classes)
    if not holds_text(feature):
        raise DataError(
            f"expected lists of names or texts such as cat;dog in {where}, found {kind_of(feature)}; {ONE_LABEL}, or "
            f"name another column with {setting(_COLUMN)}"
        )
    texts = [(value or "").strip() for value in values.to_pylist()]
    lists, note = split_texts(texts, separator=separator, where=where)
    tags = tag_lists(lists, where=where, classes=classes)
    return replace(tags, notes=(*note, *tags.notes))


def _of_lists(values: Any, where: str, names: Sequence[str] | None, classes: int | None) -> TagLists:
    if missing := values.null_count:
        row = values.is_null().to_pylist().index(True) + 1
        raise DataError(
            f"expected a list of tags a row in {where}, found none in {missing} rows (first: row {row}); write an "
            "empty list for an image without tags, or remove these rows"
        )
    values = values.combine_chunks()
    counts = np.asarray(pc.list_value_length(values)).astype(np.int64)
    flat, rows = pc.list_flatten(values), np.repeat(np.arange(len(counts)), counts)
    if (vectors := _vectors(flat, counts)) is not None:
        if classes != vectors.shape[1]:
            raise DataError(
                f"each list in {where} holds {vectors.shape[1]} values of 0 and 1, one a class; give the names of "
                f"these classes in their order with {setting('class_names')}"
            )
        return _of_vectors(vectors, where)
    return _without_blanks(
        read_labels(flat, where=where, names_of_integers=names, names_from=f"the classes of {where}"), rows
    )


def _vectors(flat: Any, counts: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Returns lists as an array (N, K) if they have a value of 0 or 1 per class, None if they are lists of tags."""
    if not len(counts) or counts[0] < 2 or (counts != counts[0]).any() or not pa.types.is_integer(flat.type):
        return None
    values = np.asarray(flat.fill_null(-1)).reshape(len(counts), -1)
    return (
        values == 1
        if np.isin(values, (0, 1)).all() and (counts[0] > 2 or (values[:, 0] == values[:, 1]).any())
        else None
    )


def _of_vectors(vectors: NDArray[np.bool_], where: str) -> TagLists:
    rows, codes = np.nonzero(vectors)
    labels = LabelColumn(where=where, values=tuple(range(vectors.shape[1])), codes=codes.astype(np.int64))
    return TagLists(rows=rows, labels=labels, is_table=True)


def read_class_columns(table: Table, names: Sequence[str], *, guessed: bool) -> TagLists:
    """Reads columns of 0 and 1, one per class.

    Args:
        table: The table.
        names: The columns.
        guessed: Whether they were guessed; if so, columns where at least half of the values are invalid are left out.

    Raises:
        DataError: A column has invalid values, fewer than two guessed columns are left, or one of these may be a split.
    """
    bits_of = {name: _as_bits(arrow_column(table.rows, name)) for name in names}
    valid = {name: bits for name, (bits, invalid) in bits_of.items() if not invalid.any()}
    invalid = [name for name in names if name not in valid]
    # a few invalid values do not exclude a guessed column, because its class would be lost silently
    for name in invalid:
        odd = np.flatnonzero(bits_of[name][1])
        if not guessed or len(odd) < len(table.rows) / 2:
            value = arrow_column(table.rows, name)[int(odd[0])].as_py()
            actual = "nothing" if value is None or value == "" else shown(repr(value))
            raise DataError(
                f'expected 0 or 1 in each row of the column "{shown(name)}" of {table.where}, found {actual} in '
                f"row {odd[0] + 1} ({len(odd)} such rows); write 0 or 1, or name the columns of classes "
                f"with {setting(_COLUMN)}"
            )
    doubtful = [name for name in valid if is_named_as_split(name)]
    if guessed and (len(valid) < 2 or doubtful):
        problem = f'of which "{shown(doubtful[0])}" may be a split' if doubtful else "fewer than two of 0 and 1"
        raise DataError(
            f"expected a column of tags in {table.where}, found the columns {listed(names, quoted=True)}, {problem}; "
            f"name the column, or those of the classes, with {setting(_COLUMN)}"
        )
    where = f"the columns of {table.where}"
    rows, codes = np.nonzero(np.stack([*valid.values()], axis=1))
    classes = tuple(valid)
    labels = LabelColumn(
        where=where, values=classes, codes=codes.astype(np.int64), class_names=classes, names_from="the columns"
    )
    remark = f"; not read: {listed(invalid, quoted=True)}" if invalid else ""
    notes = (f"each column of 0 and 1 is a class{remark}",) if guessed else ()
    return TagLists(rows=rows, labels=labels, notes=notes, is_table=True)


def _as_bits(values: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns masks, (N,) each, of the rows where a column is 1, and where it is missing or neither 0 nor 1."""
    try:
        texts = values if pa.types.is_string(values.type) else values.cast(pa.string())
    except pa.ArrowException:  # lists, or bytes that are not text
        return np.zeros(len(values), dtype=bool), np.ones(len(values), dtype=bool)
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    is_one, valid = (np.asarray(pc.is_in(texts, pa.array(each))) for each in (_YES, (*_YES, *_NO)))
    return is_one, ~valid


def split_texts(
    texts: Sequence[str], *, separator: str | None, where: str
) -> tuple[list[list[str | int]], tuple[str, ...]]:
    """Splits texts into tags.

    Args:
        texts: N texts, empty for an image without tags.
        separator: The separator of two tags. If None, lists, tuples and sets as JSON or Python writes them are parsed;
            for other texts it is guessed: the only one of `SEPARATORS` in them.
        where: Name of the texts, for messages.

    Returns:
        N lists, and remarks for the user.

    Raises:
        DataError: The separator is ambiguous.

    Example:
        >>> split_texts(["cat;dog", ""], separator=None, where="a column")[0]
        [['cat', 'dog'], []]
    """
    filled = [text for text in texts if text]
    as_lists = sum(_WRITTEN.fullmatch(text) is not None for text in filled)
    if separator is None and filled and as_lists > len(filled) / 2:
        return [_written_list(text, f"row {row} of {where}") if text else [] for row, text in enumerate(texts, 1)], ()
    note: tuple[str, ...] = ()
    if separator is None:
        separators = [each for each in SEPARATORS if any(each in text for text in filled)]
        if len(separators) > 1:
            raise DataError(
                f"expected one mark between the tags in {where}, found {listed(separators, quoted=True)}; say with "
                f"{setting('separator')} which it is"
            )
        separator = separators[0] if separators else None
        note = (f'tags in {where} are separated by "{separator}"',) if separator else ()
    if separator is None:
        return [[text] if text else [] for text in texts], note
    return [[part.strip() for part in text.split(separator)] if text else [] for text in texts], note


def _written_list(text: str, where: str) -> list[str | int]:
    """Parses a list, tuple or set as JSON or Python writes it."""
    for parse in (json.loads, _python_value):
        try:
            values = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(values, list | tuple | set) and all(map(_is_tag, values)):
            return [*values]
    raise DataError(
        f"expected lists of names or integers in {where}, found {shown(text)}; fix it, or name a {setting('separator')}"
    )


def _python_value(text: str) -> Any:
    """Parses a Python literal; rejects strings without commas, as NumPy prints them, because Python would join them."""
    value = ast.literal_eval(text)
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type != tokenize.NL]
    if (tokenize.STRING, tokenize.STRING) in pairwise(kinds):
        raise ValueError("texts without a comma between them")
    return value


def _is_tag(value: Any) -> bool:
    """Returns whether a value is a name, or an integer that Arrow can store in 64 bits."""
    return isinstance(value, str) or _is_integer(value)


def _is_integer(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def tag_lists(lists: Sequence[Sequence[Any]], *, where: str, classes: int | None = None) -> TagLists:
    """Reads N lists of names or integers, or of one value of 0 or 1 per class.

    Args:
        lists: The lists.
        where: Name of their source, for messages.
        classes: Number of class names that were passed, or None.

    Raises:
        DataError: They have other values, or values of 0 and 1 without class names.
    """
    flat = [each for tags in lists for each in tags]
    if flat and all(map(_is_integer, flat)):
        return _of_lists(pa.chunked_array([lists], pa.list_(pa.int64())), where, None, classes)
    rows = np.repeat(np.arange(len(lists)), [len(each) for each in lists])
    kinds = Counter(type(each) for each in flat)
    if kinds.keys() & {str} and len(kinds) > 1:
        flat = [str(each) for each in flat]
    return _without_blanks(read_labels(flat, where=where), rows)


def _without_blanks(labels: LabelColumn, rows: NDArray[np.int64]) -> TagLists:
    blank = labels.codes < 0
    if not blank.any():
        return TagLists(rows=rows, labels=labels)
    count = int(blank.sum())
    note = f"{counted(count, 'blank tag was', 'blank tags were')} left out (first: row {int(rows[blank][0]) + 1})"
    return TagLists(rows=rows[~blank], labels=replace(labels, codes=labels.codes[~blank]), notes=(note,))
