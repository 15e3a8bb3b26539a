"""kNN vote: a label is an issue if another label is more frequent among the nearest images (Zhu et al., ICML 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import NeighbourCount
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class KNN(Detector):
    """Lets the nearest other images vote on each label, by cosine similarity of the image features.

    Quality is the share of neighbours with the given label. A label is an issue if more neighbours have another one
    (the local vote of SimiFeat, Zhu, Dong and Liu, *Detecting Corrupted Labels Without Training a Model to Predict*,
    ICML 2022). Needs no class texts.

    Attributes:
        neighbours: k, at least 1; small data have fewer.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.KNN(neighbours=10))
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    neighbours: NeighbourCount = 20
    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import torch

        from labelsieve.detect.neighbours import nearest, vote
        from labelsieve.flagging import BY_DISAGREEMENT

        given = torch.from_numpy(inputs.given)
        neighbours = nearest(inputs.all_joint(), k=self.neighbours, progress=inputs.progress)
        votes = vote(neighbours.rows, given, given)
        return inputs.scores(
            quality=votes.agreement,
            predicted=votes.predicted,
            confidence=votes.share,
            rule=BY_DISAGREEMENT,
        )
