"""Prototype-margin GMM: margins to class means of the noisy labels, and neighbours for uncertain images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from labelsieve.core.validation import NeighbourCount, Range
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class PrototypeGMM(Detector):
    """Fits two Gaussians to the margins to class prototypes, and lets neighbours decide uncertain cases.

    A prototype is the mean of the normalised image features with a given label. The margin of an image is its cosine
    similarity to the prototype of its own class, computed without the image itself, minus the largest to another
    prototype. Two Gaussians with a common variance are fitted to the margins. If the posterior of the upper one lies
    between `1 - sure` and `sure`, the image is uncertain. Two more Gaussians are then fitted to the share of neighbours
    with the same label, for the uncertain images only; the posterior q of the upper one gives the quality
    `1 - sure + (2 sure - 1) q`. A label is an issue if its quality is at most one half. Needs no class texts.

    Attributes:
        sure: Minimum posterior for which the prototypes decide alone, 0.5 to 1.
        neighbours: k for uncertain images, at least 1; small data have fewer.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.PrototypeGMM(neighbours=10))
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    sure: Annotated[float, Range(0.5, 1)] = 0.9
    neighbours: NeighbourCount = 20
    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import numpy as np
        import torch

        from labelsieve.detect.mixture import upper_posterior
        from labelsieve.detect.neighbours import nearest, vote
        from labelsieve.detect.prototypes import prototype_margins

        vectors, given = inputs.all_joint(), torch.from_numpy(inputs.given)
        margin, predicted = prototype_margins(vectors, given, classes=inputs.classes, progress=inputs.progress)
        quality = upper_posterior(margin)
        unsure = np.flatnonzero((quality > 1 - self.sure) & (quality < self.sure))
        if len(unsure):
            uncertain = torch.from_numpy(unsure)
            neighbours = nearest(vectors, k=self.neighbours, queries=uncertain, progress=inputs.progress)
            second = upper_posterior(vote(neighbours.rows, given, given[uncertain]).agreement)
            quality[unsure] = 1 - self.sure + (2 * self.sure - 1) * second
        confidence = np.where(predicted == inputs.given, quality, 1 - quality)
        return inputs.scores(quality=quality, predicted=predicted, confidence=confidence)
