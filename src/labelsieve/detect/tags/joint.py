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
    """Joins the zero-shot model, discriminants, neighbours and the other tags of an image into one posterior a pair.

    All kinds of evidence are weighed so that they make the given tags most likely, with shares of wrong and missing
    tags for each class (`labelsieve.detect.tags.noise_model`). Works without class texts, too.

    Attributes:
        folds: Number of parts for the out-of-fold discriminants, 2 to 100; small data have fewer, each image its own.
        neighbours: How many neighbours tell, at least 1; small data have fewer.
        windows: 1 looks at whole images alone; 2 also at their 4 quarters, 3 at 9 windows of a third of the sides as
            well, and so on. They show what is small in an image. Each takes as long to encode as an image.

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
