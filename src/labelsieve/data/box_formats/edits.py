"""Edits of an annotation file of boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
"""A line with its end."""


class BoxVerdict(NamedTuple):
    """The verdict on one box, as texts.

    Attributes:
        quality: Its label quality.
        predicted: The code of the predicted class in the file.
        is_issue: Whether its label is flagged: `true` or `false`.
    """

    quality: str
    predicted: str
    is_issue: str


@dataclass(frozen=True, kw_only=True)
class BoxEdits:
    """The edits of one annotation file.

    Attributes:
        column: Name of the label in the file.
        labels: Row of the file to the code of its new label; None leaves the box out.
        verdicts: Row to the verdict to write beside the label.
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
        label: The code of the label of a box; None for other parts.
        remainder: Everything else except verdicts.
    """

    label: str | None
    remainder: Any
