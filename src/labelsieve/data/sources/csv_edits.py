"""Edits one column of CSV files, removes rows and adds columns of verdicts; every other byte stays unchanged.

The reader of :mod:`labelsieve.data.sources.csv_files` returns values; this module finds their positions. It follows
the same rules: blank lines are not rows, spaces may surround quotes, and a quoted value may span several lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError
from labelsieve.data.sources.csv_files import find_header, read_texts
from labelsieve.data.sources.edits import (
    VERDICT_COLUMNS,
    Edits,
    Splice,
    TextEdits,
    joined,
    spliced,
    text_edits,
    with_same_end,
)

_BOM = "\ufeff"
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")
# Values of the columns of verdicts in a row without a verdict.
_NO_VERDICT = ("",) * len(VERDICT_COLUMNS)


def write_csv(files: Sequence[Path], targets: Mapping[Path, Path], *, column: str, edits: Sequence[Edits]) -> None:
    """Writes the files of one table with new labels.

    Args:
        files: All files of the table.
        targets: The files to write, and their targets.
        column: The column of labels.
        edits: The edits of each file.

    Raises:
        RunError: The edits cannot be written without other changes.
    """
    tables = {path: read_texts(path).table for path in files}
    values = [value for table in tables.values() for value in table[column].to_pylist()]
    class_texts = _class_texts(values, joined(edits))
    for (path, table), part in zip(tables.items(), edits, strict=True):
        if path in targets:
            texts = text_edits(part, class_texts, column=column)
            targets[path].write_bytes(edited(path.read_bytes(), texts))
            _check(path, targets[path], table, column=column, edits=part)


def count_csv(path: Path) -> int:
    """Returns the number of rows of a CSV file."""
    return int(read_texts(path).table.num_rows)


def _class_texts(values: Sequence[str], edits: Edits) -> list[str]:
    """Returns the text of each class in the column, including new classes."""
    rows = edits.examples(values)
    examples = [None if row is None else values[row] for row in rows]
    if not edits.by_number(examples):
        return [name if text is None else text for name, text in zip(edits.class_names, examples, strict=True)]
    suffixes = {text.partition(".")[2] for text in examples if text is not None}
    after = f".{suffixes.pop()}" if len(suffixes) == 1 and "" not in suffixes else ""
    return [f"{index}{after}" if text is None else text for index, text in enumerate(examples)]


def _check(path: Path, target: Path, before: pa.Table, *, column: str, edits: Edits) -> None:
    """Checks that a new file has the requested labels and, except for removed rows, the other values of the old one.

    Raises:
        RunError: It does not.
    """
    kept_rows = np.flatnonzero(edits.is_kept)
    expected = before.take(kept_rows)
    try:
        actual = read_texts(target).table
    except DataError:
        actual = before.slice(0, 0)
    other_names = [name for name in expected.column_names if name != column]
    is_same = actual.select(other_names).equals(expected.select(other_names))
    if not (
        is_same and _are_labels_as_requested(actual, expected, column, edits.old[kept_rows] == edits.new[kept_rows])
    ):
        raise RunError(
            f"{path} could not be written with other labels and all else unchanged, so it was not; please report this"
        )


def _are_labels_as_requested(actual: pa.Table, expected: pa.Table, column: str, unchanged: NDArray[np.bool_]) -> bool:
    before, after = expected[column].to_pylist(), actual[column].to_pylist()
    is_unchanged = [old == new for old, new in zip(before, after, strict=True)]
    return bool(is_unchanged == unchanged.tolist())


class _Record(NamedTuple):
    """The position of a row: its start, the start and end of each value, and the start of the next row."""

    start: int
    fields: list[tuple[int, int]]
    end: int


def edited(data: bytes, edits: TextEdits) -> bytes:
    r"""Returns a CSV file with new values in one column, and with the columns of verdicts as the last ones.

    A value is quoted if the old one is, or if it needs quotes. Encoding, byte order mark, separator, line ends, blank
    lines and all other values stay unchanged.

    Args:
        data: The file, which :func:`labelsieve.data.sources.csv_files.read_texts` can read.
        edits: The edits; rows are counted from 0, without blank ones.

    Raises:
        DataError: A column of verdicts exists already.

    Example:
        >>> edited(b'id;label\r\n1;"cat"\r\n2; dog\r\n', TextEdits(column="label", labels={0: "dog", 1: "cat"}))
        b'id;label\r\n1;"dog"\r\n2; cat\r\n'
    """
    encoding = _encoding(data)
    text = data.decode(encoding)
    body = text.removeprefix(_BOM)
    _, skipped, separator = find_header(io.StringIO(body, newline=""))
    at = len(text) - len(body) + sum(map(len, islice(io.StringIO(body, newline=""), skipped)))
    return with_same_end(spliced(text, _splices(text, at, separator, edits)), text).encode(encoding)


def _encoding(data: bytes) -> str:
    """Returns an encoding that keeps the byte order mark in the text, so that it is written again."""
    return {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2], "utf-8")


def _rows(text: str, at: int, separator: str) -> Iterator[_Record]:
    """Yields the rows with a value, header first."""
    for record in _records(text, at, separator):
        if any(_value(text[slice(*span)]).strip() for span in record.fields):
            yield record


def _records(text: str, at: int, separator: str) -> Iterator[_Record]:
    mark = re.escape(separator)
    field = re.compile(rf' *"[^"]*(?:""[^"]*)*" *(?={mark}|[\r\n]|\Z)|[^{mark}\r\n]*')
    while at < len(text):
        start, fields = at, []
        while match := field.match(text, at):
            fields.append(match.span())
            at = match.end()
            if not text.startswith(separator, at):
                break
            at += 1
        end = _LINE_END.match(text, at)
        at = end.end() if end else len(text)
        yield _Record(start, fields, at)


def _value(token: str) -> str:
    """Returns the value of a text between two separators."""
    stripped = token.strip(" ")
    return stripped[1:-1].replace('""', '"') if len(stripped) > 1 and stripped[0] == stripped[-1] == '"' else token


def _splices(text: str, at: int, separator: str, edits: TextEdits) -> Iterator[Splice]:
    """Yields the replacements in a text, from left to right; its header starts at `at`.

    Raises:
        DataError: A column of verdicts exists already.
    """
    records = _rows(text, at, separator)
    header = next(records)
    names = [_value(text[slice(*span)]).strip() for span in header.fields]
    index, last = names.index(edits.column), len(names) - 1
    if edits.verdicts is not None:
        if twice := [name for name in VERDICT_COLUMNS if name in names]:
            raise DataError(f'there is a column "{twice[0]}" already; take the table without it')
        yield _added_after(header.fields[last], VERDICT_COLUMNS, separator)
    for row, record in enumerate(records):
        if row in edits.labels:
            label = edits.labels[row]
            if label is None:
                yield Splice(record.start, record.end, "")
                continue
            start, end = record.fields[index]
            yield Splice(start, end, _formatted_like(text[start:end], label, separator))
        if edits.verdicts is not None:
            yield _added_after(record.fields[last], edits.verdict(row) or _NO_VERDICT, separator)


def _added_after(field: tuple[int, int], values: Iterable[str], separator: str) -> Splice:
    """Adds values after the last one of a row."""
    text = "".join(separator + _formatted_like("", value, separator) for value in values)
    return Splice(field[1], field[1], text)


def _formatted_like(token: str, value: str, separator: str) -> str:
    """Formats a value with the blanks and quotes of another value.

    Readers only accept spaces next to quotes, so tabs and other blanks are put inside of new quotes.
    """
    spaced = token.strip(" ")
    before, _, after = token.partition(spaced) if spaced else (token, "", "")
    escaped = value.replace('"', '""')
    if spaced.startswith('"'):
        return f'{before}"{escaped}"{after}'
    left_blanks = spaced[: len(spaced) - len(spaced.lstrip())]
    right_blanks = spaced[len(spaced.rstrip()) :]
    if any(mark in value for mark in (separator, '"', "\r", "\n")):
        return f'{before}"{left_blanks}{escaped}{right_blanks}"{after}'
    return f"{before}{left_blanks}{value}{right_blanks}{after}"
