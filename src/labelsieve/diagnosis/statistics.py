"""Numbers about a scan, for :mod:`labelsieve.diagnosis.checks` to compare. True labels are never read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.labelled import Labelled
from labelsieve.detect.scores import Scores
from labelsieve.verdicts import Verdicts

# Classes that a finding names; a list of hundreds is not read.
MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often the zero-shot model predicts the given label.

    Attributes:
        share: Measured, between 0 and 1.
        chance: Expected of a model that does not look at the images.
        spread: Standard error of the share if it is by chance.
    """

    share: float
    chance: float
    spread: float

    def above_chance(self, value: float) -> float:
        """Puts a difference to chance on a scale where guessing is 0 and full agreement is 1."""
        return value / (1 - self.chance) if self.chance < 1 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Images grouped by equal content; G groups, most of them of one image.

    Attributes:
        order: Shape (n,): row numbers, group by group, ascending within each.
        starts: Shape (G,): where each group starts in `order`.
        sizes: Shape (G,).
        mixed: Shape (G,): true where the given labels differ within the group.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    mixed: NDArray[np.bool_]

    def first(self, groups: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns the rows of that one of the chosen groups which comes first in the data."""
        chosen = np.flatnonzero(groups)
        group = chosen[np.argmin(self.order[self.starts[chosen]])]
        return self.order[self.starts[group] : self.starts[group] + self.sizes[group]]


@dataclass(frozen=True, eq=False)
class Symptoms:
    """Measurements of a scan. Arrays of shape (n,) hold readable images only; nothing here takes K x K numbers."""

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
        """Shape (n,): true where the label is an issue."""
        return self.verdicts.is_issue[self.rows]

    @cached_property
    def agrees(self) -> NDArray[np.bool_]:
        """Shape (n,): true where the model, as it was when it scored, predicts the given label."""
        return np.asarray(self.scores.predicted[self.rows] == self.given)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """Shape (n,): probability of the predicted class."""
        return self.scores.confidence[self.rows]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Shape (K,): readable images of each class."""
        return self._count(self.given)

    @cached_property
    def lost(self) -> NDArray[np.int64]:
        """Shape (K,): flagged images of each class."""
        return self._count(self.given[self.flagged])

    @property
    def kept(self) -> NDArray[np.int64]:
        """Shape (K,): images of each class that are not flagged."""
        return self.sizes - self.lost

    @property
    def share_flagged(self) -> float:
        """Share of the readable images that are flagged."""
        return float(self.flagged.mean())

    @cached_property
    def zero_shot(self) -> Agreement | None:
        """Agreement of the zero-shot model; None if the detector did not ask it.

        Averaged over the classes rather than the images where that is known: so averaged, chance is 1 / K for every
        model that does not look at the images, one that always names the commonest class included.
        """
        sizes = self.sizes[self.sizes > 0]
        if self.scores.zero_shot_per_class is not None:
            share, chance = float(np.mean(self.scores.zero_shot_per_class[self.sizes > 0])), 1 / len(sizes)
            spread = np.sqrt(chance * (1 - chance) * (1 / sizes).sum()) / len(sizes)
        elif self.scores.zero_shot_agreement is not None:
            n, share = len(self.rows), self.scores.zero_shot_agreement
            guessed = self._count(self.scores.predicted[self.rows])
            chance = max(float(self.sizes / n @ guessed) / n, float(sizes.max() / n))
            spread = np.sqrt(chance * (1 - chance) / n)
        else:
            return None
        return Agreement(share=share, chance=chance, spread=float(spread))

    @cached_property
    def copies(self) -> Copies:
        """Duplicate images. Unreadable files are left out: empty ones are all equal, which means nothing."""
        contents = self.images.contents[self.rows]
        order = np.argsort(contents, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(contents[order]) != 0])
        labels = self.given[order]
        mixed = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        return Copies(order=self.rows[order], starts=starts, sizes=np.diff(np.r_[starts, len(order)]), mixed=mixed)

    def _count(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=len(self.images.class_names)).astype(np.int64)

    def label(self, row: int) -> str:
        """Returns the given label of one row, in quotes."""
        return f'"{shortened(self.images.class_names[self.images.labels[row]])}"'

    def names(self, classes: NDArray[np.int64], detail: Callable[[int], str] | None = None) -> str:
        """Lists the first few of the classes, each with a detail, and says how many more there are."""
        quoted = ((k, f'"{shortened(self.images.class_names[k])}"') for k in classes[:MOST_NAMES].tolist())
        shown = [f"{name} ({detail(k)})" if detail else name for k, name in quoted]
        more = len(classes) - len(shown)
        return ", ".join(shown) + (f" and {more:,} more" if more else "")


def shortened(text: str, width: int = 60) -> str:
    """Cuts a long name in the middle: the end of a path says more than the folders before it."""
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width // 2) :]}"
