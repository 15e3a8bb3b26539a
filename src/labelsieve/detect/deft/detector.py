"""DeFT: dual prompts that tell clean labels from wrong ones (Wei et al., NeurIPS 2024), with extensions of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labelsieve.detect.deft.settings import DeFTSettings

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class DeFT(DeFTSettings):
    """Finds wrong labels with learned positive and negative prompts.

    `RECIPES` holds the settings of the paper and of its published code; the defaults differ from them.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> detector = ls.DeFT(epochs=2, min_steps=0, peft="none")
        >>> verdicts = ls.scan(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.metrics["auroc"] > 0.9
        True
    """

    @property
    def weighs_annotators(self) -> bool:
        """See :class:`labelsieve.detect.base.Detector`."""
        return self.evidence == "joint"

    def score(self, inputs: DetectorInputs) -> Scores:
        """Trains the prompts and scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.deft.scoring import score_with_dual_prompts

        return score_with_dual_prompts(self, inputs)


_PAPER = DeFT(
    evidence="threshold",
    demand_agreement=False,
    warmup_loss="ce",
    warmup_epochs=1,
    min_steps=0,
    batch_size=64,
    peft="vpt-deep",
    context_tokens=16,
    context_init="random",
)

RECIPES: dict[str, DeFT] = {
    "default": DeFT(),
    # Section 4 of the paper, synthetic noise
    "paper": _PAPER,
    # the paper's setting for Sym 0.8 and Ins 0.5
    "paper-severe": replace(_PAPER, learning_rate=1e-2, positive_weight=0.25),
    # real noise, as in the published code
    "paper-real": replace(
        _PAPER, demand_agreement=True, warmup_loss="sce", warmup_epochs=5, pseudo_labels_from="second-epoch"
    ),
}
