"""Label-match: a label is clean if the zero-shot model predicts it (Wei et al., 2024, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class LabelMatch(Detector):
    """Flags labels that the zero-shot model does not predict; quality is the label's probability.

    Trains nothing. The class texts are averaged over several templates.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels).with_text(np.eye(4), logit_scale=20)
        >>> verdicts = ls.scan(features, detector=ls.LabelMatch())
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    requires = frozenset({"text"})
    predicts_test = True

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.flagging import BY_DISAGREEMENT

        first = inputs.zero_shot
        return inputs.scores(
            quality=first.label_probability,
            predicted=first.predicted,
            confidence=first.confidence,
            rule=BY_DISAGREEMENT,
            test_predicted=inputs.classify_test(),
        )
