"""Joint evidence without trained prompts, on features alone."""

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
    """Combines the zero-shot model and an out-of-fold discriminant on the image features into one posterior.

    This is the default of `deft` without the learned prompts; `labelsieve.detect.evidence.posterior` explains the
    posterior and its threshold. Without class texts, or if the zero-shot model does not know the class names, the
    verdicts rest on the discriminant alone.

    Attributes:
        folds: Number of folds of the discriminant, 2 to 100; with fewer images, each is a fold of its own.

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
