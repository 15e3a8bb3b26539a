"""The loss of DeFT on one batch, and scores by the learned threshold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from labelsieve.core.engine import Engine
from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.seeds import Purpose
from labelsieve.detect.deft.registry import WARMUP_LOSSES
from labelsieve.detect.deft.settings import DeFTSettings
from labelsieve.detect.losses import (
    clean_probability,
    dual_prompt_loss,
    select,
    similarity_loss,
)
from labelsieve.detect.training.loop import Objective, RequiredNegatives, Step


class DualObjective(Objective):
    """The weighted sum of L_dp and L_sim on one batch (Eq. 7 and 8), with warm-up, selection and pseudo-labels.

    Args:
        settings: Settings of DeFT.
        warmup: Number of warm-up epochs.
        images: N.
        classes: K.
        engine: Draws the complementary labels and sums counts over the processes.
    """

    def __init__(self, settings: DeFTSettings, *, warmup: int, images: int, classes: int, engine: Engine) -> None:
        super().__init__()
        self.settings, self.warmup, self.classes, self.engine = settings, warmup, classes, engine
        if settings.scores_from == "last-epoch":
            if engine.accelerator.num_processes > 1:
                raise SettingsError(f"{setting('scores_from')} last-epoch works in one process only; use final-pass")
            self.memory = {
                "quality": torch.zeros(images),
                "predicted": torch.zeros(images),
                "confidence": torch.zeros(images),
            }
        self._shifts, self._shifts_of = torch.zeros(images, dtype=torch.int64), 0

    def required_negatives(self, step: Step) -> RequiredNegatives | None:
        """Returns the given, refined and complementary labels; the selection with `demand_agreement` needs all classes.

        Without negative prompts it returns None.
        """
        if not self.settings.negative_prompts:
            return None
        trained = [step.labels, self._complementary(step)]
        if self._refines(step):
            trained.append(step.positive.argmax(dim=1))
        selects = step.epoch > self.warmup or self._refines(step) or bool(self.memory)
        return RequiredNegatives(torch.cat(trained).unique().cpu(), self.settings.demand_agreement and selects)

    def _refines(self, step: Step) -> bool:
        """Returns whether images that are not selected get the class predicted by the positive prompts as label."""
        first = {"after-warmup": self.warmup, "second-epoch": 1, "never": step.epoch}
        return step.epoch > first[self.settings.pseudo_labels_from]

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss, and the sums of its parts and of the selected images."""
        settings, labels, warm = self.settings, step.labels, step.epoch <= self.warmup
        chosen = self._select(step)
        count = self.engine.total(labels.new_tensor(len(labels))).clamp(min=1)  # all may have become unreadable
        if warm:
            similarity = WARMUP_LOSSES[settings.warmup_loss](step.positive, labels).sum() / count
        else:
            left = self.engine.total(chosen.sum())
            similarity = similarity_loss(step.positive, labels=labels, selected=chosen, count=left)
        self._remember(step)
        loss, parts = settings.similarity_weight * similarity, {"similarity_loss": similarity * count}
        if settings.negative_prompts:
            dual = self._dual_prompt_loss(step, chosen, count)
            loss, parts["dual_prompt_loss"] = loss + settings.dual_prompt_weight * dual, dual * count
        if not warm:  # during warm-up, the loss ignores the selection
            parts["selected"] = chosen.sum()
        return loss, {name: value.detach().float() for name, value in parts.items()}

    def _select(self, step: Step) -> Tensor:
        if not self.settings.negative_prompts:
            return score_by_threshold(step.positive, None, step.labels, False)[0] > 0.5
        return select(step.positive, step.negative, labels=step.labels, demand_agreement=self.settings.demand_agreement)

    def _dual_prompt_loss(self, step: Step, chosen: Tensor, count: Tensor) -> Tensor:
        settings, labels = self.settings, step.labels
        return dual_prompt_loss(
            step.positive,
            step.negative,
            labels=torch.where(chosen, labels, step.positive.argmax(dim=1)) if self._refines(step) else labels,
            complementary=self._complementary(step),
            positive_weight=settings.positive_weight,
            negative_weight=settings.negative_weight,
            count=count,
        )

    def _complementary(self, step: Step) -> Tensor:
        # drawn for all rows at once, so that the label of an image does not depend on batches or processes
        if self._shifts_of != step.epoch:
            generator = self.engine.generator(Purpose.COMPLEMENTARY_LABELS, step.epoch)
            self._shifts = torch.randint(1, self.classes, self._shifts.shape, generator=generator)
            self._shifts_of = step.epoch
        return (step.labels + self._shifts[step.rows].to(step.labels.device)) % self.classes

    def _remember(self, step: Step) -> None:
        if self.memory:
            negative = step.negative if self.settings.negative_prompts else None
            scored = score_by_threshold(step.positive, negative, step.labels, self.settings.demand_agreement)
            for name, value in zip(self.memory, scored, strict=True):
                self.memory[name][step.rows] = value.detach().float().cpu()


@torch.no_grad()
def score_by_threshold(
    positive: Tensor, negative: Tensor | None, labels: Tensor, demand_agreement: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores labels by the learned threshold alone (Eq. 6), or by softmax(s+).

    Args:
        positive: s+, (n, K).
        negative: s-, (n, K); None for softmax(s+).
        labels: (n,).
        demand_agreement: Whether the most likely class is that of p_clean (the rule for real noise) instead of s+.

    Returns:
        p_clean of the label, most likely class and its probability in softmax(s+), each (n,).
    """
    likely = positive.softmax(dim=1)
    probability = likely if negative is None else clean_probability(positive, negative)
    # argmax of the logits, because in float32 the probability may be 1 for several classes
    predicted = (positive - negative if demand_agreement and negative is not None else positive).argmax(dim=1)
    confidence = likely.gather(1, predicted[:, None])[:, 0]
    return probability.gather(1, labels[:, None])[:, 0], predicted, confidence
