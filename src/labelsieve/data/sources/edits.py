"""What changes in a source: old and new labels by row, and what is written beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.labels import normalise


@dataclass(frozen=True, kw_only=True, eq=False)
class RowVerdicts:
    """What a run says of N rows of a source, to be written beside their labels.

    Attributes:
        quality: Shape (N,): label quality, 0 to 1; NaN where the run says nothing of a row.
        predicted: Shape (N,), int64: the predicted classes.
        is_issue: Shape (N,), bool.
    """

    quality: NDArray[np.float64]
    predicted: NDArray[np.int64]
    is_issue: NDArray[np.bool_]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Shape (N,): of which rows the run says something."""
        return np.isfinite(self.quality)

    def part(self, part: slice) -> RowVerdicts:
        """Returns the verdicts of some rows that follow each other."""
        return RowVerdicts(quality=self.quality[part], predicted=self.predicted[part], is_issue=self.is_issue[part])


@dataclass(frozen=True, kw_only=True, eq=False)
class Edits:
    """The labels of N rows of a source, and those that take their place.

    Attributes:
        old: Shape (N,), int64, values 0 to K-1.
        new: Shape (N,), int64, values 0 to K-1, or -1 to leave the row out.
        class_names: The K names.
        verdicts: What is written beside the labels, in three more columns; None for nothing.
    """

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    class_names: tuple[str, ...]
    verdicts: RowVerdicts | None = None

    def __len__(self) -> int:
        return len(self.old)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows that change or are left out, ascending."""
        return np.flatnonzero(self.new != self.old).astype(np.int64)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Shape (N,): which rows stay."""
        return np.asarray(self.new >= 0)

    def part(self, start: int, count: int) -> Edits:
        """Returns the edits of some rows that follow each other, as of one file of several."""
        part = slice(start, start + count)
        verdicts = None if self.verdicts is None else self.verdicts.part(part)
        return Edits(old=self.old[part], new=self.new[part], class_names=self.class_names, verdicts=verdicts)

    def examples(self, values: Sequence[Hashable]) -> list[int | None]:
        """Returns for each class a row with the value that most of its rows have, None for a class without rows.

        Args:
            values: N values of the label column as they stand there: a class may be written in several ways.
        """
        counts = Counter(zip(self.old.tolist(), values, strict=True))
        most: dict[int, tuple[int, Hashable]] = {}
        for (label, value), count in counts.items():
            if label not in most or count > most[label][0]:
                most[label] = (count, value)
        wanted = {(label, value) for label, (_, value) in most.items()}
        rows: list[int | None] = [None] * len(self.class_names)
        for row, pair in enumerate(zip(self.old.tolist(), values, strict=True)):
            if pair in wanted and rows[pair[0]] is None:
                rows[pair[0]] = row
        return rows

    def by_number(self, examples: Sequence[str | None]) -> bool:
        """Returns whether a column has the numbers of the classes in the place of their names.

        Args:
            examples: How the column writes each of the K classes, None where it does not.
        """
        written = [(index, text) for index, text in enumerate(examples) if text is not None]
        named = all(normalise(text) == normalise(self.class_names[index]) for index, text in written)
        return not named and all(text.partition(".")[0] == str(index) for index, text in written)


def joined(parts: Sequence[Edits]) -> Edits:
    """Returns the edits of several files that are one table together."""
    old, new = (np.concatenate([getattr(part, name) for part in parts]) for name in ("old", "new"))
    return Edits(old=old, new=new, class_names=parts[0].class_names)
