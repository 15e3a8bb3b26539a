"""Settings of DeFT: which variant of the method is trained, and what scores the labels."""

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
        warmup_epochs: Epochs that learn from all labels before the selection begins, stretched with `min_steps`. Half
            of them: selecting before the negative prompts are stable starves training, which then collapses.
        evidence: What p_clean is made of. `threshold`: p_clean of Eq. 6, the learned threshold alone. `joint`: the
            zero-shot model, s+, the learned threshold and an out-of-fold discriminant on the image features joined into
            one posterior, which is flagged where that promises the best F1; see `labelsieve.detect.evidence.posterior`.
        demand_agreement: The rule for real noise: a label is selected only where p_clean is largest for it too.
        warmup_loss: Loss on s+ during warm-up: cross-entropy or, for real noise, symmetric cross-entropy.
        pseudo_labels_from: When labels that are not selected begin to be replaced in Eq. 7: after warm-up, from the
            second epoch on as the published code for real noise does, or never.
        positive_weight: Weight of the first term of Eq. 7; 0.25 in the paper's setting for severe noise.
        negative_weight: Weight of the second term of Eq. 7.
        dual_prompt_weight: Weight of all of Eq. 7, which alone trains the negative prompts; 0 leaves them as they were
            drawn.
        negative_prompts: False does without negative prompts and Eq. 7: p_clean is softmax(s+) of the label, and one
            half of it a threshold that no one learned. Goes with evidence `threshold` only.
        similarity_weight: Weight of Eq. 8, which alone trains the positive prompts and the encoder; 0 leaves it out.
        scores_from: `final-pass` scores un-augmented images after training; `last-epoch` keeps what the last epoch of
            training saw, as the published code does.
        folds: Number of parts for the out-of-fold discriminant, 2 to 100; small data have fewer, each image its own.
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
        """Returns whether anything learns if the encoder is adapted in a given way; negative prompts always learn."""
        return self.negative_prompts or super().trains_something(peft=peft)
