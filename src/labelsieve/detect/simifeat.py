"""SimiFeat: soft labels of the nearest images, and how many labels of each class are wrong (Zhu et al., ICML 2022)."""

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
    """Ranks each class by the soft labels of the nearest images, and flags as many as the noise rate says.

    The soft label of an image is the sum of the labels of its k nearest ones, itself among them, weighted by their
    cosines; quality is the cosine of the soft label with the given one. By `rank` (SimiFeat-R) the images of a class
    with the least quality are issues, as many as are wrong by the estimated noise transition matrix; see
    `labelsieve.detect.transition`. By `vote` (SimiFeat-V) an issue is where another class has a larger part of the soft
    label (Zhu, Dong and Liu, *Detecting Corrupted Labels Without Training a Model to Predict*, ICML 2022, arXiv
    2110.06283). The paper repeats this on 21 random croppings of the images and takes the majority; fixed features have
    one outcome. Needs no class texts.

    Attributes:
        neighbours: k, at least 2, the image itself among them; small data have fewer.
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
        # the noise is estimated from two other images
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
    """Adds up the labels of the nearest images by their cosines, without an array of N times K.

    The image itself counts as a neighbour whose cosine is as much above the first one's as that is above the second
    one's, as in the published code. Cosines that are not positive hardly count.

    Args:
        neighbours: The nearest other rows of all n, nearest first, (n, at least min(k, n) - 1).
        given: Labels, (n,).
        k: How many count, the image itself among them.

    Returns:
        Its `agreement` is the cosine of the soft label with the given one.
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
    # the sum of each label is that of its run in their sorted order
    order = labels.argsort(dim=1, stable=True)
    sums = torch.nn.functional.pad(weights.gather(1, order).cumsum(dim=1), (1, 0))
    starts, ends = runs(labels.gather(1, order), labels)
    part = sums.gather(1, ends) - sums.gather(1, starts)
    length = (weights * part).sum(dim=1).sqrt()  # Σ over classes of the squares of their parts
    largest = part.amax(dim=1)
    # rounding must not decide between equals; the image itself is the first
    chosen = (part >= largest[:, None] * (1 - 1e-9)).int().argmax(dim=1)
    predicted = labels.gather(1, chosen[:, None])[:, 0]
    return Vote((part[:, 0] / length).numpy(), predicted.numpy(), (largest / sums[:, -1]).numpy())


def lowest_of_each_class(
    quality: NDArray[np.floating[Any]], given: NDArray[np.int64], *, wrong: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Returns where the quality is among the lowest of its class, (n,).

    Of those that are equal either all are or none: as many as belong to the rate or fewer.

    Args:
        quality: (n,).
        given: Labels, (n,).
        wrong: The share of each class that is to be found, (K,), between 0 and 1.
    """
    import numpy as np

    from labelsieve.detect.chunks import rows_of_classes

    lowest = np.zeros(len(given), dtype=bool)
    for rows in rows_of_classes(given):
        many = round(float(wrong[given[rows[0]]]) * len(rows))
        ascending = np.sort(quality[rows])
        lowest[rows] = quality[rows] < ascending[many] if many < len(rows) else True
    return lowest
