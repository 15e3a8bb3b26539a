"""Label-match: a label is clean where the untouched model predicts it (Wei et al., 2024, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class LabelMatch(Detector):
    """Zero-shot agreement: an issue where the most likely class is another one; quality is the label's probability.

    Trains nothing. The class texts are averaged over several templates.
    """

    requires = frozenset({"text"})
    predicts_test = True

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        first = inputs.zero_shot
        return inputs.scores(
            quality=first.label_probability,
            predicted=first.predicted,
            confidence=first.confidence,
            threshold=0.0,
            demand_agreement=True,
            test_predicted=inputs.classify_test(),
        )
