"""Label-match: a label is clean where the untouched model predicts it (Wei et al., 2024, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import FeatureDetector

if TYPE_CHECKING:
    from labelsieve.detect.base import Scores
    from labelsieve.detect.view import FeatureView
    from labelsieve.engine import Engine


@dataclass(frozen=True, kw_only=True)
class LabelMatch(FeatureDetector):
    """Zero-shot agreement: an issue where the most likely class is another one; quality is the label's probability.

    Trains nothing. The class texts are averaged over several templates.
    """

    needs_text = True
    predicts_test = True

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row; see :class:`labelsieve.detect.base.FeatureDetector`."""
        first = view.zero_shot
        return view.scores(
            quality=first.label_probability,
            predicted=first.predicted,
            confidence=first.confidence,
            threshold=0.0,
            demand_agreement=True,
        )
