"""One family of errors: everything that the user can mend.

Each message is one line that says what was expected, what came and what to do. The command line prints it without a
traceback and ends with exit code 1; a developer catches :class:`LabelsieveError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

_EntryT = TypeVar("_EntryT")


class LabelsieveError(Exception):
    """Base of every error that labelsieve raises on purpose."""


class DataError(LabelsieveError):
    """A data source, its images, labels or class names cannot be used as they are."""


class ModelError(LabelsieveError):
    """A model folder or Hub id cannot be loaded, or the model lacks what was asked of it."""


class SettingsError(LabelsieveError):
    """A setting is unknown, out of range, or does not go with another one."""


class RunError(LabelsieveError):
    """A run folder is missing, unfinished, in the way, not writable, or belongs to other data."""


class CheckpointError(RunError):
    """A checkpoint to resume from belongs to another run, or cannot be read."""


class TrainingError(LabelsieveError):
    """Training cannot go on, for example because the loss is no longer finite."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``' (did you mean "x"?)'`` for the known word nearest to `word`, or an empty string."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{nearest[0]}"?)' if nearest else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error of another library, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_seed(seed: int) -> None:
    """Checks that a seed is one that can be drawn from.

    Raises:
        SettingsError: It is below 0.
    """
    if seed < 0:
        raise SettingsError(f"expected a seed from 0, got {seed}")


def look_up(table: Mapping[str, _EntryT], name: Any, *, what: str, error: type[Exception] = SettingsError) -> _EntryT:
    """Returns an entry of a table.

    Args:
        table: What there is, by name.
        name: What was asked for.
        what: What was asked for it with, such as a flag.
        error: What to raise if there is no such entry; the message names the nearest.
    """
    if not isinstance(name, str) or name not in table:
        raise error(f"expected {what} to be one of {', '.join(table)}, got {name}{did_you_mean(str(name), table)}")
    return table[name]
