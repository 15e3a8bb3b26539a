"""SimiFeat: soft labels from the nearest images, with an estimated noise rate per class (Zhu et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from labelsieve.core.seeds import Purpose
from labelsieve.core.validation import Range
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.neighbours import Neighbours, Vote
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class SimiFeat(Detector):
    """Ranks the images of each class by the soft labels of their neighbours, and flags the estimated share.

    The soft label of an image is the sum of the labels of its k nearest images, itself included, weighted by their
    cosine similarities. Quality is the cosine similarity of the soft label and the given one. With `rank` (SimiFeat-R)
    the images of each class with the lowest quality are issues; their number follows from the estimated noise
    transition matrix, see `labelsieve.detect.transition`. With `vote` (SimiFeat-V) a label is an issue if another class
    has a larger part of the soft label (Zhu, Dong and Liu, *Detecting Corrupted Labels Without Training a Model to
    Predict*, ICML 2022, arXiv 2110.06283). The paper repeats this on 21 random crops of the images and takes the
    majority vote; with fixed features there is only one result. Needs no class texts.

    Attributes:
        neighbours: k, at least 2, including the image itself; small data have fewer.
        rule: `rank` or `vote`.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.SimiFeat())
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    neighbours: Annotated[int, Range(2, 10_000)] = 10
    rule: Literal["rank", "vote"] = "rank"

    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import torch

        from labelsieve.detect.neighbours import nearest

        given = torch.from_numpy(inputs.given)
        # the estimate of the noise needs at least two neighbours
        neighbours = nearest(inputs.all_joint(), k=max(self.neighbours - 1, 2), progress=inputs.progress)
        soft = soft_labels(neighbours, given, k=self.neighbours)
        notes: tuple[str, ...] = ()
        issue = soft.predicted != inputs.given
        if self.rule == "rank":
            right, notes = self._share_right(neighbours.rows, given, inputs)
            issue = lowest_of_each_class(soft.agreement, inputs.given, wrong=1 - right)
        return inputs.scores(
            quality=soft.agreement, predicted=soft.predicted, confidence=soft.share, issue=issue, notes=notes
        )

    def _share_right(
        self, rows: Tensor, given: Tensor, inputs: DetectorInputs
    ) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        import numpy as np
        import torch

        from labelsieve.detect.transition import MAX_CLASSES, share_right

        if rows.shape[1] < 2:  # an image and one other
            return np.ones(inputs.classes), ()
        triples = torch.cat([given[:, None], given[rows[:, :2]]], dim=1)
        generator = inputs.engine.generator(Purpose.SIMIFEAT_TRIPLES)
        right = share_right(triples, classes=inputs.classes, generator=generator, progress=inputs.progress)
        many = len(np.unique(inputs.given))
        note = f"{many:,} classes are more than the {MAX_CLASSES} for which a noise transition matrix is estimated; "
        return right, (note + "each class was set against the rest",) if many > MAX_CLASSES else ()


def soft_labels(neighbours: Neighbours, given: Tensor, *, k: int) -> Vote:
    """Sums the labels of the nearest images, weighted by cosine similarity, without an array of N times K.

    The image itself gets the weight `2 s_1 - s_2`, s_1 and s_2 the similarities of the first two neighbours, as in the
    published code. Similarities below 1e-6 count as 1e-6.

    Args:
        neighbours: The nearest other rows of all n rows, nearest first, (n, at least min(k, n) - 1).
        given: Given labels, (n,).
        k: Number of images that count, including the image itself.

    Returns:
        The votes, whose `agreement` is the cosine similarity of the soft label and the given one.
    """
    import numpy as np

    from labelsieve.detect.neighbours import QUERIES, Vote

    near = neighbours.similarity[:, : k - 1].split(QUERIES), neighbours.rows[:, : k - 1].split(QUERIES)
    parts = [
        _soft_labels(similarity.double(), given[rows], given_labels)
        for similarity, rows, given_labels in zip(*near, given.split(QUERIES), strict=True)
    ]
    return Vote(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _soft_labels(similarity: Tensor, neighbour_labels: Tensor, given_labels: Tensor) -> Vote:
    import torch

    from labelsieve.detect.neighbours import Vote, runs

    count = similarity.shape[1]
    first = similarity[:, :1] if count else torch.ones(len(given_labels), 1, dtype=torch.float64)
    itself = 2 * first - similarity[:, 1:2] if count > 1 else first
    weights = torch.cat([itself, similarity], dim=1).clamp(min=1e-6)
    labels = torch.cat([given_labels[:, None], neighbour_labels], dim=1)
    # in sorted order, each label is a run whose sum is a difference of cumulative sums
    order = labels.argsort(dim=1, stable=True)
    sums = torch.nn.functional.pad(weights.gather(1, order).cumsum(dim=1), (1, 0))
    starts, ends = runs(labels.gather(1, order), labels)
    part = sums.gather(1, ends) - sums.gather(1, starts)
    length = (weights * part).sum(dim=1).sqrt()  # Σ over classes of the squares of their parts
    largest = part.amax(dim=1)
    # in a tie up to rounding, the first label wins: that of the image itself, then that of the nearest neighbour
    chosen = (part >= largest[:, None] * (1 - 1e-9)).int().argmax(dim=1)
    predicted = labels.gather(1, chosen[:, None])[:, 0]
    return Vote((part[:, 0] / length).numpy(), predicted.numpy(), (largest / sums[:, -1]).numpy())


def lowest_of_each_class(
    quality: NDArray[np.floating[Any]], given: NDArray[np.int64], *, wrong: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Returns whether each quality is among the lowest of its class, (n,).

    Equal values are in or out together, so that there may be fewer than the rate says.

    Args:
        quality: (n,).
        given: Given labels, (n,).
        wrong: Share of wrong labels per class, (K,), between 0 and 1.
    """
    import numpy as np

    from labelsieve.detect.chunks import rows_of_classes

    lowest = np.zeros(len(given), dtype=bool)
    for rows in rows_of_classes(given):
        many = round(float(wrong[given[rows[0]]]) * len(rows))
        ascending = np.sort(quality[rows])
        lowest[rows] = quality[rows] < ascending[many] if many < len(rows) else True
    return lowest
