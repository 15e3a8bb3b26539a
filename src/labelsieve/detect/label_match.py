"""Label-match: a label is clean where the untouched model predicts it (Wei et al., 2024, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.detect.base import Scores
    from labelsieve.engine import Engine
    from labelsieve.vlm.base import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class LabelMatch:
    """Zero-shot agreement: an issue where the most likely class is another one; quality is the label's probability.

    Trains nothing. The class texts are averaged over several templates.
    """

    def score(self, images: LabelledImages, vlm: VisionLanguageModel, *, engine: Engine) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.zero_shot import TEMPLATES, shortened_note, zero_shot

        first = zero_shot(images, vlm, engine=engine)
        longest = max(len(template.replace("{}.", "").split()) for template in TEMPLATES)
        _, shortened = vlm.tokenize_names(images.class_names, context_tokens=longest)
        return first.scores(
            images,
            quality=first.label_probability,
            predicted=first.predicted,
            confidence=first.confidence,
            threshold=0.0,
            demand_agreement=True,
            notes=shortened_note(shortened),
        )
