"""Reads the words of a command into its dataclass; what tyro says of errors is put as all other messages are."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import tyro

from labelsieve.commands.help import show_help, wants_help
from labelsieve.core.errors import UsageError, did_you_mean, listed, shown
from labelsieve.data.sources.table_formats import TABLES

# Sections of tyro's errors that say no more than the help does, or speak of Python.
_NOT_SAID = ("For full helptext", "Argument helptext", "Got errors")
# What its errors say, and what kinds of numbers and words it names in them.
_NO_NUMBER = re.compile(
    r"Error parsing (?P<option>\S+): (?:no type matching (?P<kinds>.+) could be instantiated from \[(?P<values>.*)\]"
    r"|invalid literal for int\(\) with base 10: (?P<whole>.*)|could not convert string to float: (?P<real>.*)"
    r"|Exceeds the limit .*: value has (?P<digits>\d+) digits.*)"
)
_NO_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<option>.*)'\. Expected one of \((?P<choices>.*)\)"
)
_NO_VALUE = re.compile(r"Missing value for argument '(?P<option>.*)'\..*")
_LACKING = re.compile(r"Missing from labelsieve [\w-]+: (?P<options>.*)")
_UNKNOWN = re.compile(r"Unrecognized options: (?P<words>.*)")
_SIMILAR = re.compile(r"(?:Perhaps you meant|Arguments similar to (?P<word>.*?)): (?P<options>.*)")
_KINDS = {"INT": "an integer", "FLOAT": "a number"}
_CommandT = TypeVar("_CommandT")


def read(kind: type[_CommandT], args: Sequence[str], *, prog: str, default: Any = None) -> _CommandT:
    """Reads words into a dataclass; fields of `default` replace those of the class.

    Raises:
        SystemExit: The words ask for help.
        UsageError: They cannot be understood.
    """
    if help_word := wants_help(args):
        show_help(kind, prog=prog, asked=help_word, default=default)
    start = tyro.MISSING_NONPROP if default is None else default
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command: _CommandT = tyro.cli(kind, args=list(args), prog=prog, default=start)
    except SystemExit as end:
        if end.code != 2:
            raise
        parts = [*map(_in_plain_words, _without_box(said.getvalue())), *_about_several_files(args)]
        if "missing SOURCE" in parts and (moved := _source_first(args)):
            return read(kind, moved, prog=prog, default=default)
        raise UsageError("; ".join([*parts, f"see {prog} --help"])) from None
    return command


def _source_first(args: Sequence[str]) -> list[str]:
    """Returns the words with a SOURCE in front that `--label-column NAME SOURCE` takes for a name; else nothing."""
    words = list(args)
    option = next((each for each in ("--label-column", "--tag-column") if each in words), None)
    if option is None:
        return []
    start = len(words) - words[::-1].index(option)
    end = next((at for at in range(start, len(words)) if words[at].startswith("-")), len(words))
    return [words[end - 1], *words[: end - 1], *words[end:]] if end - start > 1 else []


def _about_several_files(args: Sequence[str]) -> Iterator[str]:
    """Yields a remark on several tables where there is one source: what a shell makes of a pattern without quotes."""
    tables = [word for word in args if Path(word).suffix.lower() in TABLES and os.path.isfile(word)]
    if len(tables) > 1:
        yield f'several files are one source as a pattern in quotes, such as "{Path(tables[0]).parent}/*.parquet"'


def _in_plain_words(said: str) -> str:
    """Says one part of an error of tyro as all other messages say it; what is not known stays as it is."""
    if found := _NO_NUMBER.fullmatch(said):
        return _no_number(**found.groupdict())
    if found := _NO_CHOICE.fullmatch(said):
        choices = [each.strip(" '") for each in found["choices"].split(",") if each.strip()]
        hint = did_you_mean(found["value"], choices)
        return f"expected {found['option']} to be one of {', '.join(choices)}, got {shown(found['value'])}{hint}"
    if found := _NO_VALUE.fullmatch(said):
        option = found["option"]
        if not option.startswith("-"):  # the field of SOURCE or RUN
            return f"missing {option.rpartition('.')[2].removesuffix('_folder').upper()}"
        return f"expected a value for {option}, found none"
    if found := _LACKING.fullmatch(said):
        return f"missing {found['options']}"
    if found := _UNKNOWN.fullmatch(said):
        return f"unknown option {shown(found['words'])}"
    if found := _SIMILAR.fullmatch(said):
        return f"near to {shown(found['word'] or 'it')}: {listed(filter(None, found['options'].split(', ')))}"
    return said


def _no_number(
    *, option: str, kinds: str | None, values: str | None, whole: str | None, real: str | None, digits: str | None
) -> str:
    """Says what an option expected where a word is no number, or one of far too many digits."""
    names = (kinds or ("FLOAT" if real else "INT")).replace("{None}", "").strip("|").split("|")
    expected = " or ".join(_KINDS.get(name, name.strip("{}").replace(",", ", ")) for name in names)
    got = f"one of {int(digits):,} digits" if digits else shown((values or whole or real or "").strip("'\""))
    return f"expected {expected} for {option}, got {got}"


def _without_box(said: str) -> list[str]:
    """Returns the parts of an error that tyro draws a box around: what is wrong, without the help on each option.

    The box is drawn with lines, or with blanks and hyphens where the terminal has no lines. Below its title are
    sections with rules between them. Some are a heading and, indented by 4, options, each with its help, indented by 8.
    """
    inside = [line[2:].rstrip(" │") for line in said.splitlines()[1:-1]]
    sections = [list(lines) for is_rule, lines in groupby(inside, lambda line: not line.strip("─-")) if not is_rule]
    parts = []
    for head, *rest in sections:
        if head.startswith(_NOT_SAID):
            continue
        options = [line.split()[0] for line in rest if line.startswith("    ") and line[4] != " "]
        words = " ".join((f"{head} {', '.join(options)}" if options else " ".join([head, *rest])).split())
        parts.append(words.rstrip("."))
    return parts or [" ".join(said.split())]
