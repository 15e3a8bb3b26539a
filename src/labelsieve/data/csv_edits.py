"""Other values in one column of a CSV file, and rows left out: every other byte stays as it is.

The reader of :mod:`labelsieve.data.csv_files` gives values; this module finds where they stand. It follows the same
rules: blank lines are no rows, spaces may surround quotes, and a quoted value may go over several lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from labelsieve.data.csv_files import find_header

_BOM = "\ufeff"
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")
_LAST_LINE_END = re.compile(r"(?:\r\n|\r|\n)\Z")


class _Record(NamedTuple):
    """Where a row stands: its begin, its values from begin to end each, and the begin of the next row."""

    start: int
    fields: list[tuple[int, int]]
    end: int


def edited(data: bytes, *, column: str, values: Mapping[int, str | None]) -> bytes:
    r"""Returns a CSV file with other values in one column.

    A value gets quotes where the old one has them or where it needs them. Encoding, byte order mark, separator, line
    ends, blank lines and all other values stay as they are.

    Args:
        data: The file, which :func:`labelsieve.data.csv_files.read_texts` can read.
        column: Name of the column, as in the header.
        values: Row to its new value, None to leave the row out; rows are counted from 0, without blank ones.

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
    return _joined(text, records, names.index(column), values, separator).encode(encoding)


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


def _joined(text: str, records: Iterator[_Record], place: int, values: Mapping[int, str | None], separator: str) -> str:
    parts, at = [], 0
    for row, record in enumerate(records):
        if row not in values:
            continue
        value = values[row]
        start, end = record.fields[place] if value is not None else (record.start, record.end)
        parts.append(text[at:start])
        if value is not None:
            parts.append(_in_place_of(text[start:end], value, separator))
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
