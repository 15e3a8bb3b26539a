"""Shares on the command line: percentages are numbers, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from labelsieve.commands.help import Option
from labelsieve.core.validation import Range, range_of

_PERCENTAGE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*%\s*")


def shares_of(options: Iterable[Option]) -> dict[str, Range]:
    """Returns the ranges of those options that are shares, by their flags, such as `--drop-at`."""
    ranges = {each.flag: range_of(each.kind) for each in options}
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


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def _number(text: str) -> str:
    match = _PERCENTAGE.fullmatch(text)
    return f"{float(match[1]) / 100:.12g}" if match else text
