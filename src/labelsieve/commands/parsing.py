"""Parses the arguments of a command into its dataclass, and rewords the errors of tyro like all other messages."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, get_origin

import tyro

from labelsieve.commands.help import Option, options_of, show_help, wants_help
from labelsieve.commands.shares import example_of_share, shares_as_numbers, shares_of
from labelsieve.core.errors import UsageError, did_you_mean, listed, options_in_messages, shown
from labelsieve.core.validation import Range
from labelsieve.data.sources.table_formats import TABLES

# Sections of tyro's errors that repeat the help, or are about Python.
_SKIPPED_SECTIONS = ("For full helptext", "Argument helptext", "Got errors")
# Patterns of its errors, with the types and values that they contain.
_NOT_A_NUMBER = re.compile(
    r"Error parsing (?P<option>\S+): (?:no type matching (?P<kinds>.+) could be instantiated from \[(?P<values>.*)\]"
    r"|invalid literal for int\(\) with base 10: (?P<integer>.*)|could not convert string to float: (?P<real>.*)"
    r"|Exceeds the limit .*: value has (?P<digits>\d+) digits.*)"
)
_INVALID_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<option>.*)'\. Expected one of \((?P<choices>.*)\)"
)
_VALUE_MISSING = re.compile(r"Missing value for argument '(?P<option>.*)'\..*")
_OPTION_MISSING = re.compile(r"Missing from labelsieve [\w-]+: (?P<options>.*)")
_UNKNOWN = re.compile(r"Unrecognized options: (?P<words>.*)")
_SIMILAR = re.compile(r"(?:Perhaps you meant|Arguments similar to (?P<word>.*?)): (?P<options>.*)")
_KINDS = {"INT": "an integer", "FLOAT": "a number"}
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
    stderr = io.StringIO()
    options = list(options_of(get_origin(kind) or kind, default))
    shares = shares_of(options)
    words = shares_as_numbers(args, shares)
    try:
        with redirect_stderr(stderr), options_in_messages():
            command: _CommandT = tyro.cli(kind, args=words, prog=prog, default=start)
    except SystemExit as end:
        if end.code != 2:
            raise
        parts = [_reworded(part, shares) for part in _error_parts(stderr.getvalue())]
        parts += _about_several_files(args)
        if "missing SOURCE" in parts and (moved := _source_first(args, options)):
            return read(kind, moved, prog=prog, default=default)
        raise UsageError("; ".join([*parts, f"see {prog} --help"])) from None
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


def _reworded(message: str, shares: Mapping[str, Range]) -> str:
    """Rewords one part of an error of tyro like all other messages; unknown errors stay unchanged."""
    if match := _NOT_A_NUMBER.fullmatch(message):
        return _no_number(**match.groupdict(), limits=shares.get(match["option"]))
    if match := _INVALID_CHOICE.fullmatch(message):
        choices = [each.strip(" '") for each in match["choices"].split(",") if each.strip()]
        hint = did_you_mean(match["value"], choices)
        return f"expected {match['option']} to be one of {', '.join(choices)}, got {shown(match['value'])}{hint}"
    if match := _VALUE_MISSING.fullmatch(message):
        option = match["option"]
        if not option.startswith("-"):  # the field of SOURCE or RUN
            return f"missing {option.rpartition('.')[2].removesuffix('_folder').upper()}"
        return f"expected a value for {option}, found none"
    if match := _OPTION_MISSING.fullmatch(message):
        return f"missing {match['options']}"
    if match := _UNKNOWN.fullmatch(message):
        options = [word for word in match["words"].split(", ") if word.startswith("-")]
        return f"unknown option {shown(', '.join(options) or match['words'])}"
    if match := _SIMILAR.fullmatch(message):
        return f"near to {shown(match['word'] or 'it')}: {listed(filter(None, match['options'].split(', ')))}"
    return message


def _no_number(
    *,
    option: str,
    kinds: str | None,
    values: str | None,
    integer: str | None,
    real: str | None,
    digits: str | None,
    limits: Range | None,
) -> str:
    """Returns the message for a value that is not a number, or has far too many digits; a share has limits."""
    names = (kinds or ("FLOAT" if real else "INT")).replace("{None}", "").strip("|").split("|")
    expected = " or ".join(_KINDS.get(name, name.strip("{}").replace(",", ", ")) for name in names)
    got = f"one of {int(digits):,} digits" if digits else shown((values or integer or real or "").strip("'\""))
    if limits is not None:
        return f"expected {option} as {example_of_share(limits)}, got {got}"
    return f"expected {expected} for {option}, got {got}"


def _error_parts(message: str) -> list[str]:
    """Returns the parts of an error that tyro prints in a box, without the help of each option.

    The box has line characters or, if the terminal has none, blanks and hyphens. Below its title are sections with
    rules between them. Some have a heading and options, indented by 4, each with its help, indented by 8.
    """
    inside = [line[2:].rstrip(" │") for line in message.splitlines()[1:-1]]
    sections = [list(lines) for is_rule, lines in groupby(inside, lambda line: not line.strip("─-")) if not is_rule]
    parts = []
    for head, *lines_below in sections:
        if head.startswith(_SKIPPED_SECTIONS):
            continue
        options = [line.split()[0] for line in lines_below if line.startswith("    ") and line[4] != " "]
        words = " ".join((f"{head} {', '.join(options)}" if options else " ".join([head, *lines_below])).split())
        parts.append(words.rstrip("."))
    return parts or [" ".join(message.split())]
