"""Parses the arguments of a command into its dataclass, and rewords the errors of tyro like all other messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

import tyro

# The only way to the parts of an error. The module promises no stability, and a test of each kind of event is in
# tests/e2e/test_cli.py.
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)

from labelsieve.commands.help import Option, options_of, show_help, wants_help
from labelsieve.core.errors import UsageError, did_you_mean, options_in_messages, shown
from labelsieve.core.validation import Range, allowed_values, range_of
from labelsieve.data.sources.table_formats import TABLES

_NUMBERS = {int: "an integer", float: "a number"}
_PERCENTAGE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*%\s*")
_CommandT = TypeVar("_CommandT")


def read(kind: type[_CommandT], args: Sequence[str], *, prog: str, default: Any = None) -> _CommandT:
    """Parses arguments into a dataclass.

    Args:
        kind: The dataclass.
        args: The arguments after the verb.
        prog: The command with its verb, for help and messages.
        default: An instance whose fields replace the defaults of the class; None: they stay.

    Raises:
        SystemExit: They request help.
        UsageError: They are invalid.
        SettingsError: A value is out of range.
    """
    if help_word := wants_help(args):
        show_help(kind, prog=prog, requested=help_word, default=default)
    start = tyro.MISSING_NONPROP if default is None else default
    options = list(options_of(get_origin(kind) or kind, default))
    words = _shares_as_numbers(args, _shares_of(options))
    if empty := _empty_option(words, options):
        raise UsageError(f"expected a value for {empty}, found none; see {prog} --help")

    def refuse(event: ParseErrorEvent) -> None:
        if message := _message(event, options, words):  # later versions of tyro may have other events
            raise UsageError(message)

    try:
        with on_parse_error(refuse), options_in_messages():
            command: _CommandT = tyro.cli(kind, args=words, prog=prog, default=start)
    except UsageError as error:
        if str(error).startswith("missing SOURCE") and (moved := _source_first(args, options)):
            return read(kind, moved, prog=prog, default=default)
        raise UsageError("; ".join([str(error), *_about_several_files(args), f"see {prog} --help"])) from None
    return command


def last_value(args: Sequence[str], flag: str, *, default: str) -> str:
    """Returns the last value of a flag, before the arguments are parsed.

    Args:
        args: The arguments after the verb.
        flag: The flag with its dashes; its value is the next argument, or follows "=".
        default: The result if the flag has no value.
    """
    chosen = default
    for word, following in zip(args, [*args, "--"][1:], strict=True):
        if word == flag and not following.startswith("-"):
            chosen = following
        elif word.startswith(f"{flag}="):
            chosen = word.removeprefix(f"{flag}=")
    return chosen


def _empty_option(words: Sequence[str], options: Iterable[Option]) -> str | None:
    """Returns an option of several words that has none, which tyro treats as left out."""
    flags = {each.flag for each in options if each.takes_several}
    pairs = zip(words, [*words, "--"][1:], strict=False)
    return next((word for word, following in pairs if word in flags and following.startswith("--")), None)


def _source_first(args: Sequence[str], options: Iterable[Option]) -> list[str]:
    """Moves a SOURCE to the front that `--label-column NAME SOURCE` reads as a name; empty if there is none."""
    words, flags = list(args), {each.flag for each in options if each.takes_several}
    for start in (at + 1 for at, word in enumerate(words) if word in flags):
        end = next((at for at in range(start, len(words)) if words[at].startswith("-")), len(words))
        if end - start > 1 and (os.path.exists(words[end - 1]) or set(words[end - 1]) & set("/:*")):
            return [words[end - 1], *words[: end - 1], *words[end:]]
    return []


def _about_several_files(args: Sequence[str]) -> Iterator[str]:
    """Yields a hint if there are several tables: the shell has expanded a pattern without quotes."""
    tables = [word for word in args if Path(word).suffix.lower() in TABLES and os.path.isfile(word)]
    if len(tables) > 1:
        yield f'several files are one source as a pattern in quotes, such as "{Path(tables[0]).parent}/*.parquet"'


def _message(event: ParseErrorEvent, options: Sequence[Option], words: Sequence[str]) -> str | None:
    """Returns what is wrong with a command line; None for an event that is not known."""
    match event:
        case MissingArgs(missing_arguments=missing, unrecognized_tokens=unknown):
            names = f"missing {', '.join(_name(each.arg) for each in missing)}"
            return f"{names}; {_unknown(unknown, options)}" if unknown else names
        case UnrecognizedArgs(tokens=unknown):
            return _unknown(unknown, options)
        case BadValue(argument=argument) if _is_flag(argument):
            return f"expected a value for {_name(argument)}, found none"
        case BadValue(argument=argument):
            return f"missing {_name(argument)}"
        case InvalidChoice(argument=argument, value=value, choices=choices):
            hint = did_you_mean(value, choices)
            return f"expected {_name(argument)} to be one of {', '.join(choices)}, got {shown(value)}{hint}"
        case InstantiationFailure(argument=argument) if argument is not None:
            return _no_number(next(each for each in options if each.flag == _name(argument)), words)
    return None


def _is_flag(argument: Any) -> bool:
    return str(argument.display_name()).startswith("-")


def _name(argument: Any) -> str:
    """Returns how an argument is written: `--out`; of a field `data.source` or `run-folder`, SOURCE or RUN."""
    name = str(argument.display_name())
    return name if _is_flag(argument) else name.rpartition(".")[2].removesuffix("-folder").upper()


def _unknown(words: Sequence[str], options: Sequence[Option]) -> str:
    flags = [word for word in words if word.startswith("-")]
    if not flags:
        return f"unknown argument {shown(', '.join(words))}"
    return f"unknown option {shown(', '.join(flags))}{did_you_mean(flags[0], [each.flag for each in options])}"


def _no_number(option: Option, words: Sequence[str]) -> str:
    """Returns the message for a value that is no number; a share has limits."""
    got, limits = shown(last_value(words, option.flag, default="")), range_of(option.kind)
    if limits is not None and limits.is_share:
        return f"expected {option.flag} as {_example_of_share(limits)}, got {got}"
    types, choices, _ = allowed_values(option.kind)
    expected = [_NUMBERS[each] for each in types if each in _NUMBERS]
    return f"expected {' or '.join([*expected, *choices])} for {option.flag}, got {got}"


def _shares_of(options: Iterable[Option]) -> dict[str, Range]:
    """Returns the ranges of those options that are shares, by their flags, such as `--drop-at`."""
    ranges = {each.flag: range_of(each.kind) for each in options}
    return {flag: limits for flag, limits in ranges.items() if limits is not None and limits.is_share}


def _shares_as_numbers(args: Sequence[str], shares: Mapping[str, Range]) -> list[str]:
    """Returns arguments in which `10%` is `0.1`, if the option is a share.

    Args:
        args: The arguments after the verb.
        shares: The options that are shares, from `_shares_of`.
    """
    words: list[str] = []
    for word in args:
        name, sign, value = word.partition("=")
        if sign and _dashed(name) in shares:
            words.append(f"{name}={_number(value)}")
        else:
            words.append(_number(word) if words and _dashed(words[-1]) in shares else word)
    return words


def _example_of_share(limits: Range) -> str:
    """Returns how to write a share in a range: `a share such as 10% or 0.1`."""
    return f"a share such as {'10% or 0.1' if 0.1 in limits else '95% or 0.95'}"


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def _number(text: str) -> str:
    match = _PERCENTAGE.fullmatch(text)
    return f"{float(match[1]) / 100:.12g}" if match else text
