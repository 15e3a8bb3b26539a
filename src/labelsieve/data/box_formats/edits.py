"""What changes in an annotation file of boxes, and how it is put into the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

QUALITY, PREDICTED, ISSUE = "label_quality", "predicted_label", "is_label_issue"
"""What the parts of a verdict are called in an annotation file."""
LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
"""A line with its end."""
_LAST_END = re.compile(r"[\r\n]+\Z")


class BoxVerdict(NamedTuple):
    """What a run says of one box.

    Attributes:
        quality: Its label quality.
        predicted: The predicted class as the file writes it.
        is_issue: Whether its label is flagged.
    """

    quality: float
    predicted: str
    is_issue: bool

    @property
    def quality_text(self) -> str:
        """The label quality as it is written."""
        return quality_text(self.quality)


def quality_text(quality: float) -> str:
    """Returns a label quality with six digits at most, the same in all formats.

    Example:
        >>> quality_text(0.25), quality_text(1), quality_text(1 / 3)
        ('0.25', '1', '0.333333')
    """
    return f"{quality:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, kw_only=True)
class BoxEdits:
    """What changes in one annotation file.

    Attributes:
        column: What the label is called there.
        labels: Row of the file to its new label as the file writes it; None leaves the box out.
        verdicts: Row to what is written beside the label.
    """

    column: str
    labels: Mapping[int, str | None] = field(default_factory=dict)
    verdicts: Mapping[int, BoxVerdict] = field(default_factory=dict)

    def touches(self, row: int) -> bool:
        """Returns whether anything changes in a row."""
        return row in self.labels or row in self.verdicts


class Written(NamedTuple):
    """One part of an annotation file.

    Attributes:
        label: The label of a box, as it stands there; None for what is no box.
        rest: All else, but for verdicts.
    """

    label: str | None
    rest: Any


class Splice(NamedTuple):
    """What stands from one place of a text to another is replaced."""

    start: int
    end: int
    text: str


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """Returns a text with some of its parts replaced.

    Args:
        text: The text.
        splices: What is replaced, from left to right.

    Example:
        >>> from labelsieve.data.box_formats.edits import Splice, spliced
        >>> spliced("a cat and a dog", [Splice(2, 5, "fox"), Splice(9, 15, "")])
        'a fox and'
    """
    parts, at = [], 0
    for start, end, new in splices:
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def with_same_end(text: str, before: str) -> str:
    """Returns a text of lines without an end of its last line where the text before had none."""
    return text if _LAST_END.search(before) else _LAST_END.sub("", text)
