"""Joint evidence of tags: the zero-shot model, discriminants, neighbours and other tags in one posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import Folds, NeighbourCount, Windows
from labelsieve.detect.tags.base import TagDetector

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


@dataclass(frozen=True, kw_only=True)
class TagJoint(TagDetector):
    """Combines the zero-shot model, discriminants, neighbours and the image's other tags into one posterior per pair.

    The weights of the evidence maximise the likelihood of the given tags, together with shares of wrong and missing
    tags per class (`labelsieve.detect.tags.noise_model`). Also works without class texts.

    Attributes:
        folds: Number of folds of the discriminants, 2 to 100; with fewer images, each is a fold of its own.
        neighbours: Number of neighbours, at least 1; small data have fewer.
        windows: 1 uses whole images only; 2 adds their 4 quarters, 3 also adds 9 windows of a third of each side, and
            so on. Windows show small objects. Each takes as long to encode as an image.

    Example:
        >>> import numpy as np
        >>> from accelerate import Accelerator
        >>> from labelsieve.core.engine import Engine
        >>> from labelsieve.detect.tags.inputs import TagInputs
        >>> rng, names = np.random.default_rng(0), ["cat", "dog", "fox", "owl"]
        >>> tags = rng.random((300, 4)) < 0.3
        >>> points = tags @ np.eye(4, 8) + rng.normal(scale=0.1, size=(300, 8))
        >>> tags[0, 2], tags[1, 2] = False, True  # it is there, and it is not
        >>> engine = Engine(accelerator=Accelerator(cpu=True))
        >>> pairs = TagInputs.of_features(points, tags, class_names=names, engine=engine)
        >>> scores = TagJoint().score(pairs)
        >>> np.argwhere(scores.missing).tolist(), np.argwhere(scores.wrong).tolist()
        ([[0, 2]], [[1, 2]])
    """

    folds: Folds = 5
    neighbours: NeighbourCount = 30
    windows: Windows = 3

    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair; see :class:`labelsieve.detect.tags.base.TagDetector`."""
        from labelsieve.detect.tags.joining import join

        return join(pairs, folds=self.folds, neighbours=self.neighbours, windows=self.windows)
