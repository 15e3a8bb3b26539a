"""Joint evidence without training: what carries the default of DeFT, on features alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import Folds
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Joint(Detector):
    """Joins the zero-shot model and an out-of-fold discriminant on the image features into one posterior.

    The default of `deft` without the learned prompts: see `labelsieve.detect.evidence.posterior` for the posterior and
    where it is flagged. Works without class texts too, on the discriminant alone, which also carries the verdicts where
    the zero-shot model does not know the names of the classes.

    Attributes:
        folds: Number of parts for the out-of-fold discriminant, 2 to 100; small data have fewer, each image its own.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.Joint())
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    folds: Folds = 5

    @property
    def weighs_annotators(self) -> bool:
        """See :class:`labelsieve.detect.base.Detector`."""
        return True

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.evidence.posterior import score_inputs

        return score_inputs(inputs, inputs.features.pooled, folds=self.folds)
