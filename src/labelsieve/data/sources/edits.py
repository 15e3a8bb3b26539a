"""Edits of a source: labels and verdicts by row, as class indices or as texts of a file, and text replacements."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.labels import normalise

_LAST_LINE_ENDS = re.compile(r"[\r\n]+\Z")
QUALITY, PREDICTED, ISSUE = "label_quality", "predicted_label", "is_label_issue"
"""Names of the parts of a verdict, in a table and in an annotation file of boxes."""
VERDICT_COLUMNS = (QUALITY, PREDICTED, ISSUE)


def quality_text(quality: float) -> str:
    """Formats a label quality with at most six decimals, the same in all file formats.

    Example:
        >>> quality_text(0.25), quality_text(1), quality_text(1 / 3)
        ('0.25', '1', '0.333333')
    """
    return f"{quality:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, kw_only=True, eq=False)
class RowVerdicts:
    """Verdicts on N rows of a source, to write beside their labels.

    Attributes:
        quality: Shape (N,): label quality, 0 to 1; NaN for rows without a verdict.
        predicted: Shape (N,), int64: the predicted classes.
        is_issue: Shape (N,), bool: whether the label is flagged.
    """

    quality: NDArray[np.float64]
    predicted: NDArray[np.int64]
    is_issue: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Shape (N,): which rows have a verdict."""
        return np.isfinite(self.quality)

    def part(self, part: slice) -> RowVerdicts:
        """Returns the verdicts of a slice of rows."""
        return RowVerdicts(quality=self.quality[part], predicted=self.predicted[part], is_issue=self.is_issue[part])


@dataclass(frozen=True, kw_only=True, eq=False)
class Edits:
    """The labels of N rows of a source, and their new labels.

    Attributes:
        old: Shape (N,), int64, values 0 to K-1.
        new: Shape (N,), int64, values 0 to K-1, or -1 to remove the row.
        class_names: The K names.
        verdicts: Verdicts to write beside the labels, in three additional columns; None to write none.
    """

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    class_names: tuple[str, ...]
    verdicts: RowVerdicts | None = None

    def __len__(self) -> int:
        return len(self.old)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Returns the rows that are changed or removed, ascending."""
        return np.flatnonzero(self.new != self.old).astype(np.int64)

    @cached_property
    def is_kept(self) -> NDArray[np.bool_]:
        """Shape (N,): which rows are kept."""
        return np.asarray(self.new >= 0)

    def part(self, start: int, count: int) -> Edits:
        """Returns the edits of a slice of rows, such as those of one file."""
        part = slice(start, start + count)
        verdicts = None if self.verdicts is None else self.verdicts.part(part)
        return Edits(old=self.old[part], new=self.new[part], class_names=self.class_names, verdicts=verdicts)

    def examples(self, values: Sequence[Hashable]) -> list[int | None]:
        """Returns, for each class, a row with the most frequent value of the class; None for a class without rows.

        Args:
            values: N raw values of the label column: a class may be written in several ways.
        """
        counts = Counter(zip(self.old.tolist(), values, strict=True))
        most_frequent: dict[int, tuple[int, Hashable]] = {}
        for (label, value), count in counts.items():
            if label not in most_frequent or count > most_frequent[label][0]:
                most_frequent[label] = (count, value)
        pairs = {(label, value) for label, (_, value) in most_frequent.items()}
        rows: list[int | None] = [None] * len(self.class_names)
        for row, pair in enumerate(zip(self.old.tolist(), values, strict=True)):
            if pair in pairs and rows[pair[0]] is None:
                rows[pair[0]] = row
        return rows

    def by_number(self, examples: Sequence[str | None]) -> bool:
        """Returns whether a column has class numbers instead of class names.

        Args:
            examples: The text of each of the K classes in the column; None if the class does not occur.
        """
        written = [(index, text) for index, text in enumerate(examples) if text is not None]
        named = all(normalise(text) == normalise(self.class_names[index]) for index, text in written)
        return not named and all(text.partition(".")[0] == str(index) for index, text in written)


def joined(parts: Sequence[Edits]) -> Edits:
    """Concatenates the edits of several files of one table, without verdicts."""
    old, new = (np.concatenate([getattr(part, name) for part in parts]) for name in ("old", "new"))
    return Edits(old=old, new=new, class_names=parts[0].class_names)


class VerdictText(NamedTuple):
    """The verdict on one row of a file, as texts.

    Attributes:
        quality: Its label quality.
        predicted: The predicted class, as the file writes it.
        is_issue: Whether its label is flagged: `true` or `false`.
    """

    quality: str
    predicted: str
    is_issue: str


@dataclass(frozen=True, kw_only=True)
class TextEdits:
    """The edits of one file of a table, or of one annotation file of boxes.

    Attributes:
        column: Name of the label in the file.
        labels: Row of the file to its new label, as the file writes it; None removes the row.
        verdicts: Row to the verdict to write beside the label; None for a table without columns of verdicts.
    """

    column: str
    labels: Mapping[int, str | None] = field(default_factory=dict)
    verdicts: Mapping[int, VerdictText] | None = None

    def verdict(self, row: int) -> VerdictText | None:
        """Returns the verdict on a row, if there is one."""
        return None if self.verdicts is None else self.verdicts.get(row)

    def touches(self, row: int) -> bool:
        """Returns whether anything changes in a row."""
        return row in self.labels or self.verdict(row) is not None


def text_edits(edits: Edits, class_texts: Sequence[str], *, column: str) -> TextEdits:
    """Converts edits to texts of a file.

    Args:
        edits: The edits of the N rows of the file.
        class_texts: Each of the K classes, as the file writes it.
        column: Name of the label in the file.
    """
    labels = {row: None if edits.new[row] < 0 else class_texts[edits.new[row]] for row in edits.rows.tolist()}
    verdicts = edits.verdicts
    if verdicts is None:
        return TextEdits(column=column, labels=labels)
    texts = {
        row: VerdictText(
            quality_text(verdicts.quality[row]),
            class_texts[verdicts.predicted[row]],
            str(verdicts.is_issue[row]).lower(),
        )
        for row in np.flatnonzero(verdicts.known & edits.is_kept).tolist()
    }
    return TextEdits(column=column, labels=labels, verdicts=texts)


class Written(NamedTuple):
    """One part of an annotation file of boxes, to check edits.

    Attributes:
        label: The code of the label of a box; None for other parts.
        remainder: Everything else except verdicts.
    """

    label: str | None
    remainder: Any


class Splice(NamedTuple):
    """A replacement of a part of a text."""

    start: int
    end: int
    text: str


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """Returns a text with some of its parts replaced.

    Args:
        text: The text.
        splices: The replacements, from left to right.

    Example:
        >>> spliced("a cat and a dog", [Splice(2, 5, "fox"), Splice(9, 15, "")])
        'a fox and'
    """
    parts, at = [], 0
    for start, end, new in splices:
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def with_same_end(text: str, before: str) -> str:
    """Removes all trailing line ends if the original text had none."""
    return text if before.endswith(("\r", "\n")) else _LAST_LINE_ENDS.sub("", text)
