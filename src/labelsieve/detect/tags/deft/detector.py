"""DeFT of tags: dual prompts (Wei et al., NeurIPS 2024) as one binary classifier per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.deft.settings import TagDeFTSettings

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


@dataclass(frozen=True, kw_only=True)
class TagDeFT(TagDeFTSettings, TagDetector):
    """Learns a positive and a negative prompt per class, and combines them with the evidence of `joint`.

    The positive prompt should be more similar to images with the tag, the negative one to images without it
    (`labelsieve.detect.tags.deft.objective`). The image encoder stays frozen.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(128, seed=0)
        >>> tags = [[] if row == 3 else [CLASS_NAMES[label]] for row, label in enumerate(labels)]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> detector = TagDeFT(epochs=4, min_steps=0, windows=1)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.table["kind"][0].as_py(), verdicts.table["id"][0].as_py()
        ('missing', '0000003')
    """

    requires = frozenset({"images", "text"})

    def score(self, pairs: TagInputs) -> TagScores:
        """Trains the prompts and scores every pair; see :class:`labelsieve.detect.tags.base.TagDetector`."""
        from labelsieve.detect.tags.deft.scoring import score_pairs_with_dual_prompts

        return score_pairs_with_dual_prompts(self, pairs)
