"""CLIP-logit margin: the zero-shot logit of the given class minus the largest logit of another class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class ClipMargin(Detector):
    """Ranks labels by the margin of the given class over the strongest other class in the zero-shot logits.

    The margin is `l_y - max_{k≠y} l_k` of the zero-shot logits l, at the model's own temperature. Quality is the
    logistic function of the margin: the probability of the given class if these two were the only classes. A label is
    an issue if its margin is at most 0, that is, if another class is at least as likely. Trains nothing.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels).with_text(np.eye(4), logit_scale=20)
        >>> verdicts = ls.scan(features, detector=ls.ClipMargin())
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    requires = frozenset({"text"})
    predicts_test = True

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import torch

        from labelsieve.detect.chunks import in_chunks
        from labelsieve.detect.zero_shot import margins

        def score_rows(rows: NDArray[np.int64]) -> list[Tensor]:
            return [margins(inputs.logits(rows), torch.from_numpy(inputs.labels[rows]).to(inputs.device)).sigmoid()]

        (quality,) = in_chunks(score_rows, inputs.rows, progress=inputs.progress)
        first = inputs.zero_shot
        return inputs.scores(
            quality=quality,
            predicted=first.predicted,
            confidence=first.confidence,
            test_predicted=inputs.classify_test(),
        )
