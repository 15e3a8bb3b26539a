"""Settings of DeFT: the trained variant of the method, and how labels are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.validation import Epochs, Folds, Weight
from labelsieve.detect.deft.registry import WarmupLoss
from labelsieve.detect.training.settings import Training


@dataclass(frozen=True, kw_only=True)
class DeFTSettings(Training):
    """Settings of :class:`labelsieve.detect.deft.detector.DeFT`.

    Attributes:
        warmup_epochs: Epochs that learn from all labels before the selection begins; if `min_steps` adds epochs, the
            warm-up grows in proportion. By default half of the epochs: selection before the negative prompts are stable
            leaves too few images, and training collapses.
        evidence: What p_clean is computed from. `threshold`: p_clean of Eq. 6, the learned threshold alone. `joint`:
            one posterior from the zero-shot model, s+, the learned threshold and an out-of-fold discriminant on image
            features, flagged where the expected F1 is best; see `labelsieve.detect.evidence.posterior`.
        demand_agreement: The rule for real noise: a label is selected only if it also has the largest p_clean.
        warmup_loss: Loss on s+ during warm-up: cross-entropy or, for real noise, symmetric cross-entropy.
        pseudo_labels_from: When pseudo-labels replace unselected labels in Eq. 7: after warm-up, from the second epoch
            on, as in the published code for real noise, or never.
        positive_weight: Weight of the first term of Eq. 7; 0.25 in the paper's setting for severe noise.
        negative_weight: Weight of the second term of Eq. 7.
        dual_prompt_weight: Weight of Eq. 7, the only loss that trains the negative prompts; with 0 they stay random.
        negative_prompts: Whether to train negative prompts with Eq. 7. Without them, p_clean is softmax(s+) of the
            label, with a fixed threshold of one half; requires evidence `threshold`.
        similarity_weight: Weight of Eq. 8, the only loss that trains the positive prompts and the encoder.
        scores_from: `final-pass` scores un-augmented images after training; `last-epoch` keeps the scores of the last
            training epoch, as the published code does.
        folds: Number of folds of the discriminant, 2 to 100; with fewer images, each is a fold of its own.
    """

    warmup_epochs: Epochs = 5
    evidence: Literal["joint", "threshold"] = "joint"
    demand_agreement: bool = True
    warmup_loss: WarmupLoss = "sce"
    pseudo_labels_from: Literal["after-warmup", "second-epoch", "never"] = "after-warmup"
    positive_weight: Weight = 1.0
    negative_weight: Weight = 1.0
    dual_prompt_weight: Weight = 1.0
    negative_prompts: bool = True
    similarity_weight: Weight = 1.0
    scores_from: Literal["final-pass", "last-epoch"] = "final-pass"
    folds: Folds = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.negative_prompts and self.evidence == "joint":
            raise SettingsError(
                f"{setting('evidence')} joint reads the learned threshold; without {setting('negative_prompts')} use "
                "threshold"
            )
        if self.scores_from == "last-epoch" and (self.evidence == "joint" or self.epochs == 0):
            raise SettingsError(
                f"{setting('scores_from')} last-epoch goes with {setting('evidence')} threshold and at least one epoch "
                "only"
            )

    def trains_something(self, *, peft: str) -> bool:
        """Returns whether anything is trained with a given `peft`; negative prompts always are."""
        return self.negative_prompts or super().trains_something(peft=peft)
