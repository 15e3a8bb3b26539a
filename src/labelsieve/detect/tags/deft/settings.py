"""Settings of DeFT of tags: how the prompts are trained, and how pairs are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labelsieve.core.validation import Epochs, Folds, LearningRate, NeighbourCount, Windows
from labelsieve.detect.training.settings import PromptTraining


@dataclass(frozen=True, kw_only=True)
class TagDeFTSettings(PromptTraining):
    """Settings of :class:`labelsieve.detect.tags.deft.detector.TagDeFT`.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the prompts as initialised.
        warmup_epochs: Epochs in which all pairs have the same weight; afterwards, pairs that are likely wrong count
            less. If `min_steps` adds epochs, the warm-up grows in proportion. By default half of the epochs: p_clean is
            one half at the start and says nothing about the noise before it has learned.
        batch_size: Images per step, over all processes together. `auto` grows from 64 with the data up to 2048, as long
            as there are still 300 steps, or `min_steps` if that is more.
        learning_rate: Of SGD, with cosine decay by epoch. It is ten times the rate for one label per image, because the
            loss is a mean over pairs, most of which say little.
        context_learns: Whether the context of the positive prompts is trained; if not, only the negative prompts learn.
        evidence: What p_clean is computed from. `threshold`: Eq. 6, the learned threshold alone; a pair is an issue if
            its given state has a probability of at most one half. `joint`: one posterior from the learned threshold, s+
            and all evidence of detector `joint`, flagged where the expected F1 is best.
        folds: Number of folds of the discriminants of `joint`, 2 to 100; small data have fewer.
        neighbours: Number of neighbours in `joint`, at least 1; small data have fewer.
        windows: The finest grid of windows of images that `joint` also uses; 1 for none.
    """

    warmup_epochs: Epochs = 5
    learning_rate: LearningRate = 0.3
    evidence: Literal["joint", "threshold"] = "joint"
    folds: Folds = 5
    neighbours: NeighbourCount = 30
    windows: Windows = 3
