"""What the command line says and accepts in its own way: messages name options, and shares may be percentages.

Settings have the names of Python in the messages of all other modules, since these serve Python as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_origin

from labelsieve.commands.help import Option, options_of
from labelsieve.core.errors import LabelsieveError
from labelsieve.core.validation import Range, range_of

# An option with its form in Python behind it: --overwrite (overwrite=True).
_IN_PYTHON = re.compile(r"(--[\w-]+) \(\w+=\w*\)")
_PERCENTAGE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*%\s*")


@contextmanager
def names_of_options(kind: Any, default: Any = None) -> Iterator[None]:
    """Rewords errors that are raised within, so that they name the options of a verb.

    Args:
        kind: The dataclass of the verb, or a generic one with the settings of a detector.
        default: An instance, whose settings may be of another class.
    """
    try:
        yield
    except LabelsieveError as error:
        error.args = (with_option_names(str(error), options_of(get_origin(kind) or kind, default)),)
        raise


def with_option_names(message: str, options: Iterable[Option]) -> str:
    """Returns a message in which the names of settings are those of options.

    Names of one word are replaced only where a message says what is expected of them, for they may be plain words.

    Args:
        message: The message.
        options: The options of the verb.

    Example:
        >>> share = Option(name="drop_at", group="", kind=float, value=1, about="")
        >>> with_option_names("drop_at goes with imagefolder only; leave it out", [share])
        '--drop-at goes with imagefolder only; leave it out'
    """
    message = _IN_PYTHON.sub(r"\1", message)
    for option in options:
        if option.is_positional:
            continue
        name = re.escape(option.name)
        pattern = rf"(?<![\w./\"'=-]){name}(?![\w/\"'(=]|\.\w)"
        if "_" not in option.name:  # without a range, "from 0" is said of other things than the option
            numbers = "from|above|" if range_of(option.kind) is not None else ""
            pattern = rf"(?<=^expected ){name}(?= (?:{numbers}to be one|to be of type|with) )"
        message = re.sub(pattern, _flag(option), message)
    return message


def shares_of(options: Iterable[Option]) -> dict[str, Range]:
    """Returns the ranges of those options that are shares, by their flags, such as `--drop-at`."""
    ranges = {_flag(each): range_of(each.kind) for each in options}
    return {flag: limits for flag, limits in ranges.items() if limits is not None and limits.is_share}


def shares_as_numbers(args: Sequence[str], shares: Mapping[str, Range]) -> list[str]:
    """Returns arguments in which `10%` is `0.1`, if the option is a share.

    Args:
        args: The arguments after the verb.
        shares: The options that are shares, from `shares_of`.
    """
    words: list[str] = []
    for word in args:
        name, sign, value = word.partition("=")
        if sign and _dashed(name) in shares:
            words.append(f"{name}={_number(value)}")
        else:
            words.append(_number(word) if words and _dashed(words[-1]) in shares else word)
    return words


def example_of_share(limits: Range) -> str:
    """Returns how to write a share in a range: `a share such as 10% or 0.1`."""
    return f"a share such as {'10% or 0.1' if 0.1 in limits else '95% or 0.95'}"


def _flag(option: Option) -> str:
    return f"--{option.name.replace('_', '-')}"


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def _number(text: str) -> str:
    match = _PERCENTAGE.fullmatch(text)
    return f"{float(match[1]) / 100:.12g}" if match else text
