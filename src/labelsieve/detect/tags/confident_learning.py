"""Confident learning of tags with `cleanlab`, on out-of-fold probabilities of each class against the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import Folds
from labelsieve.detect.confident_learning import FilterBy, Strength
from labelsieve.detect.tags.base import TagDetector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


@dataclass(frozen=True, kw_only=True)
class TagConfidentLearning(TagDetector):
    """Flags tags class by class, as `cleanlab` does for several labels per image.

    The probabilities are out-of-fold predictions of logistic regressions on the standardised image features. The issues
    are those of `find_multilabel_issues_per_class`. Rates of wrong and missing tags are not estimated.

    Attributes:
        folds: Number of folds, 2 to 100. With fewer images than folds, each image is a fold of its own.
        filter_by: Rule of `cleanlab`.
        strength: Inverse of the regularisation strength of the logistic regressions (C of scikit-learn), above 0.

    Example:
        >>> import numpy as np
        >>> from accelerate import Accelerator
        >>> from labelsieve.core.engine import Engine
        >>> from labelsieve.detect.tags.inputs import TagInputs
        >>> rng = np.random.default_rng(0)
        >>> tags = rng.random((100, 3)) < 0.4
        >>> points = tags @ np.eye(3, 6) + rng.normal(scale=0.05, size=(100, 6))
        >>> tags[0] = ~tags[0]
        >>> engine = Engine(accelerator=Accelerator(cpu=True))
        >>> pairs = TagInputs.of_features(points, tags, class_names=["cat", "dog", "fox"], engine=engine)
        >>> TagConfidentLearning().score(pairs).issue[0].tolist()
        [True, True, True]
    """

    folds: Folds = 5
    filter_by: FilterBy = "prune_by_noise_rate"
    strength: Strength = 1.0

    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair; see :class:`labelsieve.detect.tags.base.TagDetector`."""
        from labelsieve.detect.tags.probe import out_of_fold_pair_probabilities
        from labelsieve.detect.tags.scores import tag_scores

        probability = out_of_fold_pair_probabilities(pairs, folds=self.folds, strength=self.strength)
        with pairs.images.progress.task("pruning with cleanlab", total=1, unit="passes", brief=True) as advance:
            issue = self._prune(pairs.given, probability)
            advance(1)
        return tag_scores(pairs, probability, issue=issue)

    def _prune(self, given: NDArray[np.bool_], probability: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns whether `cleanlab` finds an issue, (n, K)."""
        import warnings

        import numpy as np
        from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

        issue = np.zeros(given.shape, dtype=bool)
        # cleanlab raises an error for classes that no image or every image has
        mixed = np.flatnonzero(given.any(axis=0) & ~given.all(axis=0))
        labels = [np.flatnonzero(row).tolist() for row in given[:, mixed]]
        with warnings.catch_warnings():  # cleanlab warns of classes with few images
            warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
            issue[:, mixed] = find_multilabel_issues_per_class(
                labels, probability[:, mixed], filter_by=self.filter_by, n_jobs=1
            )
        return issue
