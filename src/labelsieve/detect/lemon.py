"""LEMoN: label errors by multimodal neighbours (Zhang et al., ICML 2025, arXiv 2407.18941)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labelsieve.detect.base import FeatureDetector
from labelsieve.validation import Neighbours, Weight, check_fields

if TYPE_CHECKING:
    from labelsieve.detect.base import Scores
    from labelsieve.detect.view import FeatureView
    from labelsieve.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Lemon(FeatureDetector):
    """Ranks by how far an image is from its label's text, and both from their neighbours' labels and images.

    The score is `s = d_mm + beta s_n + gamma s_m`, higher = more suspicious; `labelsieve.detect.multimodal` has the
    terms. The defaults are the fixed hyper-parameters of the paper, for data without validation labels. There the
    paper has no threshold either: here two Gaussians with one common variance part the scores. Quality is the posterior
    of the lower one, which ranks exactly as the score does; an issue is where it is at most one half.

    Attributes:
        neighbours: k, at least 1; small data have fewer.
        beta: Weight of the neighbours in image space.
        gamma: Weight of the neighbours in text space.
        distance_decay: How much less far neighbours count: τ_1,n and τ_1,m.
        pair_decay: How much less neighbours count whose own image and label do not fit: τ_2,n and τ_2,m.
        text_distance: Distance of two labels in s_n: `discrete` is 0 or 1, as the published code has it for classes;
            `cosine` is that of their texts.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels).with_text(np.eye(4), logit_scale=20)
        >>> verdicts = ls.scan(features, detector=ls.Lemon(neighbours=10))
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    neighbours: Neighbours = 30
    beta: Weight = 5.0
    gamma: Weight = 5.0
    distance_decay: Weight = 0.1
    pair_decay: Weight = 5.0
    text_distance: Literal["discrete", "cosine"] = "discrete"
    needs_text = True

    def __post_init__(self) -> None:
        check_fields(self)

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row; see :class:`labelsieve.detect.base.FeatureDetector`."""
        from labelsieve.detect.mixture import upper_posterior
        from labelsieve.detect.multimodal import multimodal_score

        score = multimodal_score(self, view, engine=engine)
        first = view.zero_shot
        return view.scores(quality=upper_posterior(-score), predicted=first.predicted, confidence=first.confidence)
