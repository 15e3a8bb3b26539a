"""Formats numbers with their units for the report, the terminal and messages, with non-breaking spaces."""

from __future__ import annotations

import re

UNKNOWN = "\u2013"
NBSP = "\u00a0"
"""The non-breaking space between a number and its unit, in texts for the report and for records."""

# The space between a number and the word after it, which may be a unit: "3,000 images", "59.6 s", "12 %".
_SPACE = re.compile(r"(?<=\d) (?=[%°\w])(?!\d)")
_UNBROKEN = re.compile(rf"(?:[<>]{NBSP})?\d[\d,.]*[ {NBSP}](?!\d)[%°\w]+|(?<![\w-])--[a-z][a-z-]*")


def percent(share: float | None) -> str:
    """Formats a share between 0 and 1 as a percentage, without rounding to 0 % or 100 %."""
    if share is None or share != share:
        return UNKNOWN
    if 0 < share < 0.001:
        return f"<{NBSP}0.1{NBSP}%"
    if 0.999 < share < 1:
        return f">{NBSP}99.9{NBSP}%"
    return f"{100 * share:.{0 if share in (0, 1) or 0.1 <= share < 0.99 else 1}f}{NBSP}%"


def points(share: float | None) -> str:
    """Formats an accuracy between 0 and 1 as a percentage with one decimal."""
    return UNKNOWN if share is None else f"{100 * share:.1f}{NBSP}%"


def thousands(number: int) -> str:
    """Formats a count with a thousands separator."""
    return f"{number:,}"


def counted(number: int, singular: str, plural: str) -> str:
    """Formats a number with a noun in the singular or plural.

    Args:
        number: The number, with commas for thousands in the text.
        singular: The noun for a number of 1.
        plural: The noun for all other numbers.
    """
    return f"{number:,} {singular if number == 1 else plural}"


def megabytes(size: int) -> str:
    """Formats the size of a file, given in bytes, in MB."""
    return f"{size / 1e6:.1f}{NBSP}MB"


def gigabytes(size: float) -> str:
    """Formats an amount of memory, given in GB."""
    return f"{size:.1f}{NBSP}GB"


def duration(seconds: float | None) -> str:
    """Formats seconds in s, min or h; empty if unknown."""
    if seconds is None:
        return ""
    if seconds < 59.5:  # more rounds to a minute
        return f"{seconds:.0f}{NBSP}s" if seconds >= 1 else f"{seconds:.1f}{NBSP}s"
    minutes, remaining_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {remaining_seconds}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def about(seconds: float) -> str:
    """Formats an estimated time in seconds, with at most two digits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"about {value:.1f}{NBSP}{unit}" if value < 10 else f"about {value:.0f}{NBSP}{unit}"
    return f"about {max(1, round(seconds))}{NBSP}s"


def bind_units(text: str, glue: str = NBSP) -> str:
    """Replaces the space between each number and the word after it.

    Args:
        text: Any text.
        glue: The character that replaces these spaces and all non-breaking spaces.

    Example:
        >>> bind_units("3,000 images, 12 % flagged", "_")
        '3,000_images, 12_% flagged'
    """
    return _SPACE.sub(glue, text).replace(NBSP, glue)


def plain(text: str) -> str:
    """Replaces non-breaking spaces by ordinary ones, because the text of terminals is copied and parsed."""
    return text.replace(NBSP, " ")


def unbroken_parts(text: str) -> list[tuple[str, bool]]:
    """Splits a text into pieces, each with whether it must stay on one line: numbers with units, and options.

    Example:
        >>> unbroken_parts("of 12 images (--limit)")
        [('of ', False), ('12 images', True), (' (', False), ('--limit', True), (')', False)]
    """
    pieces, end = [], 0
    for match in _UNBROKEN.finditer(text):
        pieces += [(text[end : match.start()], False), (match[0], True)]
        end = match.end()
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]
