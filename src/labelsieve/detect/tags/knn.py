"""kNN vote of tags: a given tag is wrong if few nearest images have it; an absent one is missing if most have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import NeighbourCount
from labelsieve.detect.tags.base import TagDetector

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


@dataclass(frozen=True, kw_only=True)
class TagKNN(TagDetector):
    """Lets the nearest images vote on each tag, weighted by similarity, and calibrates the shares of each class.

    Needs no class texts.

    Attributes:
        neighbours: k, at least 1; small data have fewer.

    Example:
        >>> import numpy as np
        >>> from accelerate import Accelerator
        >>> from labelsieve.core.engine import Engine
        >>> from labelsieve.detect.tags.inputs import TagInputs
        >>> rng = np.random.default_rng(0)
        >>> tags = rng.random((300, 3)) < 0.4
        >>> points = tags @ np.eye(3, 6) + rng.normal(scale=0.05, size=(300, 6)) + 0.2
        >>> tags[0] = ~tags[0]
        >>> engine = Engine(accelerator=Accelerator(cpu=True))
        >>> pairs = TagInputs.of_features(points, tags, class_names=["cat", "dog", "fox"], engine=engine)
        >>> TagKNN(neighbours=10).score(pairs).issue[0].tolist()
        [True, True, True]
    """

    neighbours: NeighbourCount = 30

    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair; see :class:`labelsieve.detect.tags.base.TagDetector`."""
        import torch

        from labelsieve.detect.tags.evidence import neighbour_kind, neighbours_of
        from labelsieve.detect.tags.joining import score_alone

        neighbours = neighbours_of(pairs, self.neighbours)
        return score_alone(pairs, neighbour_kind(pairs, torch.from_numpy(pairs.given).float(), neighbours))
