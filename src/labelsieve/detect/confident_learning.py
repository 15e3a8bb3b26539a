"""Confident learning (Northcutt et al., JAIR 2021) with `cleanlab`, on out-of-fold probabilities of a linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labelsieve.core.validation import Folds, Range
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores

FilterBy = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
Strength = Annotated[float, Range(1e-12, 1e12)]


@dataclass(frozen=True, kw_only=True)
class ConfidentLearning(Detector):
    """Flags labels by the joint distribution of given and true labels, as estimated by `cleanlab`.

    The probabilities are out-of-fold predictions of logistic regressions on the standardised image features. Quality
    is the probability of the given label (`self_confidence`). The issues are those of
    :func:`cleanlab.filter.find_label_issues`, which by default uses counts for each pair of classes, not a threshold.
    Memory grows with N times K, because `cleanlab` requires all probabilities at once.

    Attributes:
        folds: Number of folds, 2 to 100. With fewer images than folds, each image is a fold of its own.
        filter_by: Rule of `cleanlab`.
        strength: Inverse of the regularisation strength of the logistic regression (C of scikit-learn), above 0.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.ConfidentLearning())
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    folds: Folds = 5
    filter_by: FilterBy = "prune_by_noise_rate"
    strength: Strength = 1.0
    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import numpy as np

        from labelsieve.detect.probe import out_of_fold_probabilities

        probability = out_of_fold_probabilities(inputs, folds=self.folds, strength=self.strength)
        with inputs.progress.task("pruning with cleanlab", total=1, unit="passes", brief=True) as advance:
            issue = self._prune(inputs.given, probability)
            advance(1)
        return inputs.scores(
            quality=probability[np.arange(len(probability)), inputs.given],
            predicted=probability.argmax(axis=1),
            confidence=probability.max(axis=1),
            issue=issue,
        )

    def _prune(self, given: NDArray[np.int64], probability: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns whether `cleanlab` finds an issue, (n,), for labels (n,) and probabilities (n, K)."""
        import warnings

        import numpy as np
        from cleanlab.filter import find_label_issues

        if len(np.unique(given)) < 2:  # cleanlab raises an error for a single class
            return np.zeros(len(given), dtype=bool)
        with warnings.catch_warnings():  # the diagnosis reports classes with few images
            warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
            return np.asarray(find_label_issues(given, probability, filter_by=self.filter_by, n_jobs=1))
