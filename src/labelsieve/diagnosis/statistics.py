"""Statistics of a scan for :mod:`labelsieve.diagnosis.checks`. True labels are never used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.labelled import Labelled
from labelsieve.detect.scores import Scores
from labelsieve.verdicts import Verdicts

# Maximum number of classes that a diagnosis names.
MAX_NAMES = 5


@dataclass(frozen=True, eq=False)
class ScanStatistics:
    """Statistics of a scan. Arrays of shape (n,) are for readable images; no array has K x K elements."""

    images: Labelled
    scores: Scores
    verdicts: Verdicts

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Shape (n,): row numbers of the readable images."""
        return np.flatnonzero(self.verdicts.is_readable)

    @cached_property
    def given(self) -> NDArray[np.int64]:
        """Shape (n,): given labels."""
        return self.images.labels[self.rows]

    @cached_property
    def flagged(self) -> NDArray[np.bool_]:
        """Shape (n,): whether the label is an issue."""
        return self.verdicts.is_issue[self.rows]

    @cached_property
    def agrees(self) -> NDArray[np.bool_]:
        """Shape (n,): whether the model that computed the scores predicts the given label."""
        return np.asarray(self.scores.predicted[self.rows] == self.given)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """Shape (n,): probability of the predicted class."""
        return self.scores.confidence[self.rows]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Shape (K,): number of readable images per class."""
        return self._count(self.given)

    @cached_property
    def lost(self) -> NDArray[np.int64]:
        """Shape (K,): number of flagged images per class."""
        return self._count(self.given[self.flagged])

    @property
    def kept(self) -> NDArray[np.int64]:
        """Shape (K,): number of unflagged images per class."""
        return self.sizes - self.lost

    @property
    def share_flagged(self) -> float:
        """Share of the readable images that are flagged."""
        return float(self.flagged.mean())

    def _count(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=len(self.images.class_names)).astype(np.int64)

    def label(self, row: int) -> str:
        """Returns the given label of one row, in quotes."""
        return f'"{shortened(self.images.class_names[self.images.labels[row]])}"'

    def names(self, classes: NDArray[np.int64], detail: Callable[[int], str] | None = None) -> str:
        """Returns the names of the first few classes, each with a detail, and the number of the others."""
        quoted = ((k, f'"{shortened(self.images.class_names[k])}"') for k in classes[:MAX_NAMES].tolist())
        items = [f"{name} ({detail(k)})" if detail else name for k, name in quoted]
        more = len(classes) - len(items)
        return ", ".join(items) + (f" and {more:,} more" if more else "")


def shortened(text: str, width: int = 60) -> str:
    """Shortens a long name in the middle: the end of a path matters more than the folders."""
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width // 2) :]}"
