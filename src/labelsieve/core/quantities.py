"""Numbers with their units, as report, terminal and messages write them, and how the two stay on one line."""

from __future__ import annotations

import re

UNKNOWN = "\u2013"
NBSP = "\u00a0"
"""A space that does not break: between a number and its unit, in texts for the report and for records."""

# The space between a number and the word after it, which may be a unit: "3,000 images", "59.6 s", "12 %".
_SPACE = re.compile(r"(?<=\d) (?=[%°\w])(?!\d)")
_QUANTITY = re.compile(rf"(?:[<>]{NBSP})?\d[\d,.]*[ {NBSP}](?!\d)[%°\w]+")


def percent(share: float | None) -> str:
    """Writes a share between 0 and 1 as a percentage that never rounds something to nothing, or nearly all to all."""
    if share is None or share != share:
        return UNKNOWN
    if 0 < share < 0.001:
        return f"<{NBSP}0.1{NBSP}%"
    if 0.999 < share < 1:
        return f">{NBSP}99.9{NBSP}%"
    return f"{100 * share:.{0 if share in (0, 1) or 0.1 <= share < 0.99 else 1}f}{NBSP}%"


def points(share: float | None) -> str:
    """Writes an accuracy between 0 and 1 in percent with one digit: models are compared by it."""
    return UNKNOWN if share is None else f"{100 * share:.1f}{NBSP}%"


def counted(number: int, one: str, many: str) -> str:
    """Writes a number with the words for one or for many."""
    return f"{number:,} {one if number == 1 else many}"


def megabytes(size: int) -> str:
    """Writes the size of a file in bytes."""
    return f"{size / 1e6:.1f}{NBSP}MB"


def gigabytes(size: float) -> str:
    """Writes an amount of memory in GB."""
    return f"{size:.1f}{NBSP}GB"


def duration(seconds: float | None) -> str:
    """Writes seconds as a person would say them; empty where unknown."""
    if seconds is None:
        return ""
    if seconds < 59.5:  # more is a minute when rounded
        return f"{seconds:.0f}{NBSP}s" if seconds >= 1 else f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def about(seconds: float) -> str:
    """Writes a time that is no more than a guess, to two digits at most."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"about {value:.1f}{NBSP}{unit}" if value < 10 else f"about {value:.0f}{NBSP}{unit}"
    return f"about {max(1, round(seconds))}{NBSP}s"


def glued(text: str, glue: str = NBSP) -> str:
    """Puts a character that does not break between each number and the word after it.

    Args:
        text: Any text.
        glue: One character, which takes the place of the spaces, and of those that do not break already.

    Example:
        >>> glued("3,000 images, 12 % flagged", "_")
        '3,000_images, 12_% flagged'
    """
    return _SPACE.sub(glue, text).replace(NBSP, glue)


def plain(text: str) -> str:
    """Returns a text with usual spaces alone, for terminals: what is copied from there is typed or parsed again."""
    return text.replace(NBSP, " ")


def parts(text: str) -> list[tuple[str, bool]]:
    """Splits a text at its numbers with units; each part comes with whether it is one.

    Example:
        >>> parts("of 12 images")
        [('of ', False), ('12 images', True)]
    """
    found, end = [], 0
    for match in _QUANTITY.finditer(text):
        found += [(text[end : match.start()], False), (match[0], True)]
        end = match.end()
    return [part for part in [*found, (text[end:], False)] if part[0]]
