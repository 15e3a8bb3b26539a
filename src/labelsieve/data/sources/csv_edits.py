"""Other values in one column of a CSV file, and rows left out: every other byte stays as it is.

The reader of :mod:`labelsieve.data.sources.csv_files` gives values; this module finds where they stand. It follows
the same rules: blank lines are no rows, spaces may surround quotes, and a quoted value may go over several lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from labelsieve.core.errors import DataError
from labelsieve.data.sources.csv_files import find_header

_BOM = "\ufeff"
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")
_LAST_LINE_END = re.compile(r"(?:\r\n|\r|\n)\Z")


class _Record(NamedTuple):
    """Where a row stands: its begin, its values from begin to end each, and the begin of the next row."""

    start: int
    fields: list[tuple[int, int]]
    end: int


def edited(
    data: bytes,
    *,
    column: str,
    values: Mapping[int, str | None],
    added: Mapping[str, Mapping[int, str]] | None = None,
) -> bytes:
    r"""Returns a CSV file with other values in one column, and with further columns at its end.

    A value gets quotes where the old one has them or where it needs them. Encoding, byte order mark, separator, line
    ends, blank lines and all other values stay as they are.

    Args:
        data: The file, which :func:`labelsieve.data.sources.csv_files.read_texts` can read.
        column: Name of the column, as in the header.
        values: Row to its new value, None to leave the row out; rows are counted from 0, without blank ones.
        added: Name of a new column to its values by row; other rows have none there.

    Raises:
        DataError: There is a column of that name already.

    Example:
        >>> edited(b'id;label\r\n1;"cat"\r\n2; dog\r\n', column="label", values={0: "dog", 1: "cat"})
        b'id;label\r\n1;"dog"\r\n2; cat\r\n'
    """
    encoding = _encoding(data)
    text = data.decode(encoding)
    body = text.removeprefix(_BOM)
    _, skipped, separator = find_header(io.StringIO(body, newline=""))
    at = len(text) - len(body) + _begin_of_line(body, skipped)
    records = _rows(text, at, separator)
    header = next(records)
    names = [_value(text[slice(*span)]).strip() for span in header.fields]
    if twice := [name for name in added or () if name in names]:
        raise DataError(f'there is a column "{twice[0]}" already; take the table without it')
    place = names.index(column)
    changes = _changes(header, records, place, values, _further(added or {}, separator))
    return _joined(text, changes, separator).encode(encoding)


def _encoding(data: bytes) -> str:
    """Returns an encoding that leaves the byte order mark in the text, so that it is written again."""
    return {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2], "utf-8")


def _begin_of_line(text: str, number: int) -> int:
    at = 0
    for _ in range(number):
        found = _LINE_END.search(text, at)
        at = found.end() if found else len(text)
    return at


def _rows(text: str, at: int, separator: str) -> Iterator[_Record]:
    """Yields the rows that hold a value, header first."""
    for record in _records(text, at, separator):
        if any(_value(text[slice(*span)]).strip() for span in record.fields):
            yield record


def _records(text: str, at: int, separator: str) -> Iterator[_Record]:
    mark = re.escape(separator)
    field = re.compile(rf' *"[^"]*(?:""[^"]*)*" *(?={mark}|[\r\n]|\Z)|[^{mark}\r\n]*')
    while at < len(text):
        start, fields = at, []
        while found := field.match(text, at):
            fields.append(found.span())
            at = found.end()
            if not text.startswith(separator, at):
                break
            at += 1
        end = _LINE_END.match(text, at)
        at = end.end() if end else len(text)
        yield _Record(start, fields, at)


def _value(token: str) -> str:
    """Returns the value of what stands between two separators."""
    bare = token.strip(" ")
    return bare[1:-1].replace('""', '"') if len(bare) > 1 and bare[0] == bare[-1] == '"' else token


def _further(added: Mapping[str, Mapping[int, str]], separator: str) -> Callable[[int | None], str]:
    """Returns a function that gives the values of new columns in a row, or their names for None."""

    def further(row: int | None) -> str:
        values = added if row is None else [column.get(row, "") for column in added.values()]
        return "".join(separator + _in_place_of("", value, separator) for value in values)

    return further


class _Change(NamedTuple):
    """What stands from one place to another is replaced by a value, or by nothing.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        value: What takes its place; None for nothing.
        whole: Whether the value is text of the file, which gets no quotes.
    """

    start: int
    end: int
    value: str | None
    whole: bool = False


def _changes(
    header: _Record,
    records: Iterator[_Record],
    place: int,
    values: Mapping[int, str | None],
    further: Callable[[int | None], str],
) -> Iterator[_Change]:
    last = len(header.fields) - 1
    if more := further(None):
        yield _Change(*(header.fields[last][1],) * 2, more, whole=True)
    for row, record in enumerate(records):
        if row in values and values[row] is None:
            yield _Change(record.start, record.end, None)
            continue
        if row in values:
            yield _Change(*record.fields[place], values[row])
        if more:
            yield _Change(*(record.fields[last][1],) * 2, further(row), whole=True)


def _joined(text: str, changes: Iterator[_Change], separator: str) -> str:
    parts, at = [], 0
    for start, end, value, whole in changes:
        parts.append(text[at:start])
        if value is not None:
            parts.append(value if whole else _in_place_of(text[start:end], value, separator))
        at = end
    result = "".join([*parts, text[at:]])
    has_end = _LAST_LINE_END.search(text) is not None
    return result if has_end else _LAST_LINE_END.sub("", result)


def _in_place_of(token: str, value: str, separator: str) -> str:
    """Writes a value with the blanks and quotes that another one has around it.

    Beside a quote a reader takes no other blanks than spaces: tabs and the like stand within new quotes.
    """
    spaced = token.strip(" ")
    before, _, after = token.partition(spaced) if spaced else (token, "", "")
    escaped = value.replace('"', '""')
    if spaced.startswith('"'):
        return f'{before}"{escaped}"{after}'
    left = spaced[: len(spaced) - len(spaced.lstrip())]
    right = spaced[len(spaced.rstrip()) :]
    if any(mark in value for mark in (separator, '"', "\r", "\n")):
        return f'{before}"{left}{escaped}{right}"{after}'
    return f"{before}{left}{value}{right}{after}"
