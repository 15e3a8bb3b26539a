"""AUM: the area under the margin while a probe learns, with threshold samples (Pleiss et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labelsieve.detect.base import FeatureDetector
from labelsieve.validation import BatchSize, LearningRate, Momentum, Range, Steps, WeightDecay, check_fields

if TYPE_CHECKING:
    from labelsieve.detect.base import Scores
    from labelsieve.detect.view import FeatureView
    from labelsieve.engine import Engine


@dataclass(frozen=True, kw_only=True)
class AUM(FeatureDetector):
    """Ranks by the margin of the given label, averaged over the epochs in which a linear probe learns all labels.

    The margin of an image in epoch t is `z_y - max_{k≠y} z_k` of the probe's logits z when the image comes up (Eq. 1 of
    Pleiss et al., *Identifying Mislabeled Data using the Area Under the Margin Ranking*, NeurIPS 2020); AUM is its mean
    over the epochs (Eq. 2). The threshold is learned too: one image in K + 1 is put into an extra class, where it does
    not belong, and an image is an issue where its AUM is not above the 99th percentile of theirs. A second probe with
    other threshold samples judges the first ones. Quality is a logistic function of the distance to the threshold, so
    that it ranks as AUM does.

    By `average_of="probabilities"` the margin is instead that of the logarithms of the probabilities after each epoch,
    averaged over the epochs: the combination in sample that a benchmark found the best (Pickler, Kamassury and Silva,
    *Benchmarking Noisy Label Detection Methods*, 2025, arXiv 2510.16211). Threshold samples are as before.

    Attributes:
        average_of: What is averaged over the epochs: `margins`, which is AUM, or `probabilities`.
        epochs: Passes over the data, at least 1.
        min_steps: Small data get more epochs until there are at least this many steps.
        batch_size: Images in a step.
        learning_rate: Of SGD on standardised features, scaled to a mean square length of 1.
        momentum: Of SGD.
        weight_decay: Of SGD.
        percentile: Of the threshold samples, between 0 and 100; 99 in the paper.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.AUM())
        >>> sorted(verdicts.label_quality.argsort()[:2].tolist())  # the two of lowest quality
        [0, 1]
    """

    average_of: Literal["margins", "probabilities"] = "margins"
    epochs: Annotated[int, Range(1, 1_000)] = 20
    min_steps: Steps = 300
    batch_size: BatchSize = 256
    learning_rate: LearningRate = 1.0
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 1e-4
    percentile: Annotated[float, Range(0, 100)] = 99.0
    uses_text = False

    def __post_init__(self) -> None:
        check_fields(self)

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row; see :class:`labelsieve.detect.base.FeatureDetector`."""
        from labelsieve.detect.area import score_by_area

        return score_by_area(self, view, engine=engine)
