"""Label-match of tags: the zero-shot model alone, with a slope and a bias per class that are fitted to the tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.validation import Windows
from labelsieve.detect.tags.base import TagDetector

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


@dataclass(frozen=True, kw_only=True)
class TagLabelMatch(TagDetector):
    """Scores pairs by zero-shot probability: a sigmoid of the logit, with slope and bias per class fitted to the tags.

    The fitted shares of wrong and missing tags turn the probability into the posterior of the given state.

    Attributes:
        windows: 1 uses whole images only; 2 adds their 4 quarters, 3 also adds 9 windows of a third of each side, and
            so on. The odds of a class are summed over these views.

    Example:
        >>> import numpy as np
        >>> from accelerate import Accelerator
        >>> from labelsieve.core.engine import Engine
        >>> from labelsieve.detect.tags.inputs import TagInputs
        >>> rng = np.random.default_rng(0)
        >>> tags = rng.random((300, 4)) < 0.3
        >>> points = tags @ np.eye(4, 8) + rng.normal(scale=0.1, size=(300, 8))
        >>> tags[:30, 0] = ~tags[:30, 0]
        >>> names, engine = ["cat", "dog", "fox", "owl"], Engine(accelerator=Accelerator(cpu=True))
        >>> pairs = TagInputs.of_features(
        ...     points, tags, class_names=names, engine=engine, text=np.eye(4, 8), logit_scale=20
        ... )
        >>> quality = TagLabelMatch().score(pairs).quality
        >>> bool(quality[:30, 0].mean() < quality[30:, 0].mean())
        True
    """

    requires = frozenset({"text"})
    windows: Windows = 3

    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair; see :class:`labelsieve.detect.tags.base.TagDetector`."""
        from labelsieve.detect.tags.evidence import zero_shot_kind
        from labelsieve.detect.tags.joining import score_alone
        from labelsieve.detect.tags.windows import views_of, zero_shot_of_views

        views = views_of(pairs, self.windows)
        return score_alone(pairs, zero_shot_kind(pairs) if views is None else zero_shot_of_views(views))
