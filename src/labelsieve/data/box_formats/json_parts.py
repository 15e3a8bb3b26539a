"""Iterates over the parts of a large JSON file with their positions, and parses only one part at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from pathlib import Path
from typing import Any, NamedTuple

from labelsieve.core.errors import DataError
from labelsieve.data.sources.file_kinds import read_whole

_BLANKS = re.compile(r"[ \t\n\r]*")
# The byte order mark of UTF-8, and its bytes decoded as Latin-1.
_BOMS = ("\ufeff", "\xef\xbb\xbf")


_DECODE = json.JSONDecoder().raw_decode


class Part(NamedTuple):
    """A value of the outermost object, or one element of a list in it.

    Attributes:
        key: The name of the value.
        value: The parsed value.
        start: Start of the value in the text.
        end: End of the value.
        in_list: Whether it is an element of a list.
    """

    key: str
    value: Any
    start: int
    end: int
    in_list: bool


def read_json_text(path: Path) -> str:
    """Reads a file as text, including any byte order mark.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    try:
        return read_whole(path).decode()
    except UnicodeDecodeError:
        raise DataError(f"expected JSON in UTF-8, found other bytes in {path}; convert it first") from None


def json_parts(text: str, *, where: object) -> Iterator[Part]:
    """Yields the parts of a JSON object: each element of its lists, and its other values.

    Args:
        text: The whole text.
        where: Name of the file, for messages.

    Raises:
        DataError: It is not a JSON object, or is truncated.

    Example:
        >>> [(part.key, part.value) for part in json_parts('{"a": 1, "b": [2, 3]}', where="a text")]
        [('a', 1), ('b', 2), ('b', 3)]
    """
    try:
        yield from _parts(text)
    except (ValueError, IndexError, StopIteration, RecursionError) as error:
        stripped = text.rstrip()
        is_truncated = (
            isinstance(error, IndexError) or not stripped.endswith("}") or getattr(error, "pos", 0) >= len(stripped)
        )
        advice = "it is cut off; get the whole file" if is_truncated else "check the file"
        raise DataError(f"expected a JSON object in {where}, which cannot be read; {advice}") from None


def _parts(text: str) -> Iterator[Part]:
    begin = next((len(bom) for bom in _BOMS if text.startswith(bom)), 0)
    at = _expect(text, _after(text, begin), "{")
    while text[at] != "}":
        key, at = scanstring(text, _expect_quote(text, at))
        at = _expect(text, _after(text, at), ":")
        if text[at] == "[":
            at = _after(text, at + 1)
            while text[at] != "]":
                value, end = _DECODE(text, at)
                yield Part(key, value, at, end, True)
                at = _after(text, end)
                if text[at] == ",":
                    at = _after(text, at + 1)
                elif text[at] != "]":
                    raise ValueError
            at = _after(text, at + 1)
        else:
            value, end = _DECODE(text, at)
            yield Part(key, value, at, end, False)
            at = _after(text, end)
        if text[at] != "}":
            at = _expect(text, at, ",")
            _expect_quote(text, at)
    if _after(text, at + 1) < len(text):
        raise ValueError


class Member(NamedTuple):
    """A key of an object and its value.

    Attributes:
        key: The key.
        start: Start of the key in the text, including its quote.
        value: Start of the value.
        end: End of the value.
    """

    key: str
    start: int
    value: int
    end: int


def members(text: str, at: int) -> list[Member]:
    """Returns the members of the object that starts at a position of a valid JSON text.

    Example:
        >>> members('{"a": {"b": 1}, "c": 2}', 0)[1]
        Member(key='c', start=16, value=21, end=22)
    """
    result = []
    at = _after(text, at + 1)
    while text[at] != "}":
        start = at
        key, at = scanstring(text, at + 1)
        value = _after(text, _after(text, at) + 1)
        _, end = _DECODE(text, value)
        result.append(Member(key, start, value, end))
        at = _after(text, end)
        at = _after(text, at + 1) if text[at] == "," else at
    return result


def _after(text: str, at: int) -> int:
    """Returns the position after blanks."""
    return _BLANKS.match(text, at).end()  # type: ignore[union-attr]  # it always matches


def _expect(text: str, at: int, mark: str) -> int:
    if text[at] != mark:
        raise ValueError
    return _after(text, at + 1)


def _expect_quote(text: str, at: int) -> int:
    if text[at] != '"':
        raise ValueError
    return at + 1
