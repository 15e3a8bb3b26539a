"""DeFT of pairs: dual prompts (Wei et al., NeurIPS 2024) as one classifier for each class, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labelsieve.core.validation import Epochs, Folds, check_fields
from labelsieve.core.validation import Neighbours as NeighbourCount
from labelsieve.detect.pairs.base import PairDetector
from labelsieve.detect.training.settings import PromptTraining

if TYPE_CHECKING:
    from labelsieve.detect.pairs.inputs import PairInputs
    from labelsieve.detect.pairs.scores import PairScores


@dataclass(frozen=True, kw_only=True)
class PairDeFT(PromptTraining, PairDetector):
    """Learns a positive and a negative prompt of each class that tell whether an image shows it, joined with the rest.

    A given tag is a pair that the positive prompt should win, an absent one a pair that the negative one should win
    (`labelsieve.detect.pairs.deft.objective`). The image encoder stays frozen.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the prompts as they begin.
        warmup_epochs: Epochs that learn from all pairs alike before those count less that are likely wrong, stretched
            with `min_steps`. Half of them: p_clean begins at one half everywhere, and tells nothing of the noise
            before it has learned.
        batch_size: Images a step, over all processes together. `auto` grows from 64 with the data to 2048 at most, as
            far as there are still 300 steps, or `min_steps` if that is more.
        learning_rate: Of SGD, with cosine decay by epoch.
        context_learns: False keeps the context of the positive prompts as it began, so that the negative ones alone
            learn.
        evidence: What p_clean is made of. `threshold`: Eq. 6, the learned threshold alone; a pair is an issue where its
            given state has one half or less. `joint`: the learned threshold and s+ beside all that `joint` reads, in
            one posterior, which is flagged where that promises the best F1.
        folds: Number of parts for the out-of-fold discriminants of `joint`, 2 to 100; small data have fewer.
        neighbours: How many neighbours tell in `joint`, at least 1; small data have fewer.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(128, seed=0)
        >>> tags = [[] if row == 3 else [CLASS_NAMES[label]] for row, label in enumerate(labels)]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> detector = PairDeFT(epochs=4, min_steps=0)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.table["kind"][0].as_py(), verdicts.table["id"][0].as_py()
        ('missing', '0000003')
    """

    requires = frozenset({"images", "text"})

    warmup_epochs: Epochs = 5
    evidence: Literal["joint", "threshold"] = "joint"
    folds: Folds = 5
    neighbours: NeighbourCount = 30

    def __post_init__(self) -> None:
        check_fields(self)

    def score(self, pairs: PairInputs) -> PairScores:
        """Trains the prompts and scores every pair; see :class:`labelsieve.detect.pairs.base.PairDetector`."""
        from labelsieve.detect.pairs.deft.scoring import score_pairs_with_dual_prompts

        return score_pairs_with_dual_prompts(self, pairs)
