"""Settings of DeFT of tags: how the prompts are trained, and what scores the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labelsieve.core.validation import Epochs, Folds, LearningRate, NeighbourCount, Windows
from labelsieve.detect.training.settings import PromptTraining


@dataclass(frozen=True, kw_only=True)
class TagDeFTSettings(PromptTraining):
    """Settings of :class:`labelsieve.detect.tags.deft.detector.TagDeFT`.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the prompts as they begin.
        warmup_epochs: Epochs that learn from all pairs alike before those count less that are likely wrong, stretched
            with `min_steps`. Half of them: p_clean begins at one half everywhere, and tells nothing of the noise
            before it has learned.
        batch_size: Images a step, over all processes together. `auto` grows from 64 with the data to 2048 at most, as
            far as there are still 300 steps, or `min_steps` if that is more.
        learning_rate: Of SGD, with cosine decay by epoch. Ten times that of one label an image: the loss is a mean over
            pairs, of which most say little, and with less the prompts hardly learn.
        context_learns: False keeps the context of the positive prompts as it began, so that the negative ones alone
            learn.
        evidence: What p_clean is made of. `threshold`: Eq. 6, the learned threshold alone; a pair is an issue where its
            given state has one half or less. `joint`: the learned threshold and s+ beside all that `joint` reads, in
            one posterior, which is flagged where that promises the best F1.
        folds: Number of parts for the out-of-fold discriminants of `joint`, 2 to 100; small data have fewer.
        neighbours: How many neighbours tell in `joint`, at least 1; small data have fewer.
        windows: The finest grid of windows of images that `joint` looks at, too; 1 for none.
    """

    warmup_epochs: Epochs = 5
    learning_rate: LearningRate = 0.3
    evidence: Literal["joint", "threshold"] = "joint"
    folds: Folds = 5
    neighbours: NeighbourCount = 30
    windows: Windows = 3
