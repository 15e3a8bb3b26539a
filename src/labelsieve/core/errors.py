"""Exceptions for everything that the user can fix.

Each message is one line: what was expected, what came and what to do. The command line prints it without a
traceback and ends with exit code 1; a developer catches :class:`LabelsieveError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

_EntryT = TypeVar("_EntryT")
# Limits of quotations in messages: characters of a value, characters before its ellipsis, values of a list.
_CHARACTERS, _HEAD, _VALUES = 80, 40, 10
# Prefixes of option names, innermost last; empty in Python, where messages use the names of the settings.
_prefixes: list[str] = []


class LabelsieveError(Exception):
    """Base of every error that labelsieve raises on purpose.

    Example:
        >>> import labelsieve as ls
        >>> try:
        ...     ls.load_images("no such folder/")
        ... except ls.LabelsieveError as error:
        ...     print(type(error).__name__)
        DataError
    """


class UsageError(Exception):
    """The command line itself is wrong: exit code 2."""


class DataError(LabelsieveError):
    """A data source, its images, labels or class names cannot be used as they are."""


class ModelError(LabelsieveError):
    """A model folder or Hub id cannot be loaded, or the model lacks a required feature."""


class SettingsError(LabelsieveError):
    """A setting is unknown, out of range, or cannot be combined with another one."""


class RunError(LabelsieveError):
    """A run folder is missing, unfinished or not writable, exists already, or belongs to other data."""


class CheckpointError(RunError):
    """A checkpoint to resume from belongs to another run, or cannot be read."""


class TrainingError(LabelsieveError):
    """Training cannot continue, for example because the loss is no longer finite."""


@contextmanager
def options_in_messages(prefix: str = "") -> Iterator[None]:
    """Makes messages use the names of command-line options instead of settings, in all threads.

    Args:
        prefix: Prefix of the names, such as `test_`.
    """
    _prefixes.append(prefix)
    try:
        yield
    finally:
        _prefixes.pop()


def setting(name: str) -> str:
    """Returns the name of a setting in messages: `drop_at`, or `--drop-at` on the command line.

    Example:
        >>> with options_in_messages():
        ...     setting("drop_at")
        '--drop-at'
        >>> setting("drop_at")
        'drop_at'
    """
    return f"--{_prefixes[-1]}{name}".replace("_", "-") if _prefixes else name


def shown(value: Any) -> str:
    """Formats a value for a message: one line of printable characters, at most 80.

    The middle of a longer value is left out, because the end of a path matters most.

    Example:
        >>> shown("a" * 50 + "b" * 50)[38:45], len(shown("a" * 100))
        ('aa...bb', 80)
    """
    text = _text(value)
    if len(text) > _CHARACTERS:
        text = f"{text[:_HEAD]}...{text[_HEAD + 3 - _CHARACTERS :]}"
    return "".join(each if each.isprintable() else " " for each in text)


def _text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # Python does not format integers of more than 4,300 digits
        return f"a number of {int(value.bit_length() * 0.30103):,} digits"


def listed(values: Iterable[Any], *, quoted: bool = False) -> str:
    """Formats values for a message: the first ten, and the number of the others.

    Example:
        >>> listed(range(12))
        '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    values = list(values)
    words = [f'"{shown(each)}"' if quoted else shown(each) for each in values[:_VALUES]]
    more = len(values) - len(words)
    return ", ".join(words) + (f" and {more} more" if more else "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``' (did you mean "x"?)'`` for the known word nearest to `word`, or an empty string.

    Known words that look the same as `word` are skipped.
    """
    nearest = difflib.get_close_matches(shown(word), [each for each in known if shown(each) != shown(word)], n=1)
    return f' (did you mean "{shown(nearest[0])}"?)' if nearest else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error of another library, or its class name if the message is empty."""
    lines = str(error).strip().splitlines()
    return shown(lines[0]) if lines else type(error).__name__


def look_up(table: Mapping[str, _EntryT], name: Any, *, what: str, error: type[Exception] = SettingsError) -> _EntryT:
    """Returns an entry of a table.

    Args:
        table: Entries by name.
        name: The name to look up.
        what: Name of the setting in the message, such as a flag.
        error: Exception to raise if there is no such entry; the message suggests the nearest name.
    """
    if not isinstance(name, str) or name not in table:
        hint = did_you_mean(str(name), table)
        raise error(f"expected {what} to be one of {', '.join(table)}, got {shown(name)}{hint}")
    return table[name]
