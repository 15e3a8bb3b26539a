"""Edits one column of a CSV file and removes rows; every other byte stays unchanged.

The reader of :mod:`labelsieve.data.sources.csv_files` returns values; this module finds their positions. It follows
the same rules: blank lines are not rows, spaces may surround quotes, and a quoted value may span several lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from labelsieve.core.errors import DataError
from labelsieve.data.sources.csv_files import find_header
from labelsieve.data.sources.edits import Splice, spliced, with_same_end

_BOM = "\ufeff"
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")


class _Record(NamedTuple):
    """The position of a row: its start, the start and end of each value, and the start of the next row."""

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

    A value is quoted if the old one is, or if it needs quotes. Encoding, byte order mark, separator, line ends, blank
    lines and all other values stay unchanged.

    Args:
        data: The file, which :func:`labelsieve.data.sources.csv_files.read_texts` can read.
        column: Name of the column, as in the header.
        values: Row to its new value, None to leave the row out; rows are counted from 0, without blank ones.
        added: Name of a new column to its values by row; other rows are empty.

    Raises:
        DataError: A column of that name exists.

    Example:
        >>> edited(b'id;label\r\n1;"cat"\r\n2; dog\r\n', column="label", values={0: "dog", 1: "cat"})
        b'id;label\r\n1;"dog"\r\n2; cat\r\n'
    """
    encoding = _encoding(data)
    text = data.decode(encoding)
    body = text.removeprefix(_BOM)
    _, skipped, separator = find_header(io.StringIO(body, newline=""))
    at = len(text) - len(body) + _start_of_line(body, skipped)
    records = _rows(text, at, separator)
    header = next(records)
    names = [_value(text[slice(*span)]).strip() for span in header.fields]
    if twice := [name for name in added or () if name in names]:
        raise DataError(f'there is a column "{twice[0]}" already; take the table without it')
    index = names.index(column)
    splices = _splices(text, separator, header, records, index, values, _further(added or {}, separator))
    return with_same_end(spliced(text, splices), text).encode(encoding)


def _encoding(data: bytes) -> str:
    """Returns an encoding that keeps the byte order mark in the text, so that it is written again."""
    return {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2], "utf-8")


def _start_of_line(text: str, number: int) -> int:
    at = 0
    for _ in range(number):
        match = _LINE_END.search(text, at)
        at = match.end() if match else len(text)
    return at


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


def _further(added: Mapping[str, Mapping[int, str]], separator: str) -> Callable[[int | None], str]:
    """Returns a function that returns the values of new columns in a row, or their names for None."""

    def further(row: int | None) -> str:
        values = added if row is None else [column.get(row, "") for column in added.values()]
        return "".join(separator + _formatted_like("", value, separator) for value in values)

    return further


def _splices(
    text: str,
    separator: str,
    header: _Record,
    records: Iterator[_Record],
    index: int,
    values: Mapping[int, str | None],
    further: Callable[[int | None], str],
) -> Iterator[Splice]:
    last = len(header.fields) - 1
    if more := further(None):
        yield Splice(*(header.fields[last][1],) * 2, more)
    for row, record in enumerate(records):
        if row in values:
            value = values[row]
            if value is None:
                yield Splice(record.start, record.end, "")
                continue
            start, end = record.fields[index]
            yield Splice(start, end, _formatted_like(text[start:end], value, separator))
        if more:
            yield Splice(*(record.fields[last][1],) * 2, further(row))


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
