"""AUM: the area under the margin while a probe learns, with threshold samples (Pleiss et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import FeatureDetector
from labelsieve.detect.settings import check_fields, check_least
from labelsieve.errors import SettingsError

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

    Attributes:
        epochs: Passes over the data, at least 1.
        min_steps: Small data get more epochs until there are at least this many steps.
        batch_size: Images in a step.
        learning_rate: Of SGD on standardised features, scaled to a mean square length of 1.
        momentum: Of SGD.
        weight_decay: Of SGD.
        percentile: Of the threshold samples, between 0 and 100; 99 in the paper.
    """

    epochs: int = 20
    min_steps: int = 300
    batch_size: int = 256
    learning_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    percentile: float = 99.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_least(self, epochs=1, min_steps=0, batch_size=1, momentum=0, weight_decay=0, percentile=0)
        if not 0 < self.learning_rate < float("inf"):
            raise SettingsError(f"expected a learning_rate above 0, got {self.learning_rate}")
        if self.momentum >= 1 or self.percentile > 100:
            raise SettingsError(
                f"expected momentum below 1 and a percentile up to 100, got {self.momentum} and {self.percentile}"
            )

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row; see :class:`labelsieve.detect.base.FeatureDetector`."""
        from labelsieve.detect.area import score_by_area

        return score_by_area(self, view, engine=engine)
