"""The work of DeFT: train the dual prompts, then score every image with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.data.images import LabelledImages
from labelsieve.detect.base import Scores
from labelsieve.detect.discriminant import fit_discriminants, logits_of
from labelsieve.detect.joint import Judged, judge_jointly
from labelsieve.detect.learner import Feed, adapted_features, classify_others
from labelsieve.detect.losses import (
    clean_probability,
    dual_prompt_loss,
    select,
    similarity_loss,
    symmetric_cross_entropy,
)
from labelsieve.detect.planning import prepare
from labelsieve.detect.training import Reads, Step, train
from labelsieve.detect.view import FeatureView
from labelsieve.detect.zero_shot import in_chunks, shortened_note
from labelsieve.engine import Engine
from labelsieve.errors import SettingsError
from labelsieve.vlm.base import VisionLanguageModel

if TYPE_CHECKING:
    from labelsieve.detect.deft import DeFT

# Purposes of random generators; see also those in learner.py.
COMPLEMENT, FOLDS, SAMPLE = 3, 4, 5

EVIDENCE = ("zero-shot", "positive prompts", "learned threshold", "image features", "smoothed features")


class DualObjective:
    """The total loss L_dp + L_sim of one batch (Eq. 7 and 8), each weighed, with warm-up, selection and pseudo-labels.

    Args:
        settings: Which variant.
        warmup: Number of warm-up epochs.
        images: N.
        classes: K.
        engine: Draws the complementary labels and sums counts over the processes.
    """

    def __init__(self, settings: DeFT, *, warmup: int, images: int, classes: int, engine: Engine) -> None:
        self.settings, self.warmup, self.classes, self.engine = settings, warmup, classes, engine
        self.memory: dict[str, Tensor] = {}
        if settings.scores_from == "last-epoch":
            if engine.accelerator.num_processes > 1:
                raise SettingsError("scores_from last-epoch works in one process only; use final-pass")
            self.memory = {
                "quality": torch.zeros(images),
                "predicted": torch.zeros(images),
                "confidence": torch.zeros(images),
            }
        self._shifts, self._shifts_of = torch.zeros(images, dtype=torch.int64), 0

    def begins(self, epoch: int) -> None:
        """Selects step by step, so that there is nothing to do."""

    def reads(self, step: Step) -> Reads | None:
        """Returns the given, refined and complementary labels; to demand agreement is to look at all others, too.

        Without negative prompts there is nothing to read.
        """
        if not self.settings.negative_prompts:
            return None
        trained = [step.labels, self._complementary(step)]
        if self._refines(step):
            trained.append(step.positive.argmax(dim=1))
        selects = step.epoch > self.warmup or self._refines(step) or bool(self.memory)
        return Reads(torch.cat(trained).unique().cpu(), self.settings.demand_agreement and selects)

    def _refines(self, step: Step) -> bool:
        """Tells whether images that are not selected get the label that the positive prompts say."""
        first = {"after-warmup": self.warmup, "second-epoch": 1, "never": step.epoch}
        return step.epoch > first[self.settings.pseudo_labels_from]

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss and sums of its parts and of the selected."""
        settings, labels, warm = self.settings, step.labels, step.epoch <= self.warmup
        chosen = self._select(step)
        count = self.engine.total(labels.new_tensor(len(labels))).clamp(min=1)  # all may have become unreadable
        if warm and settings.warmup_loss == "sce":
            similarity = symmetric_cross_entropy(step.positive, labels).sum() / count
        elif warm:
            similarity = similarity_loss(step.positive, labels=labels, count=count)
        else:
            left = self.engine.total(chosen.sum())
            similarity = similarity_loss(step.positive, labels=labels, selected=chosen, count=left)
        self._remember(step)
        loss, parts = settings.similarity_weight * similarity, {"similarity_loss": similarity * count}
        if settings.negative_prompts:
            dual = self._dual_prompt_loss(step, chosen, count)
            loss, parts["dual_prompt_loss"] = loss + settings.dual_prompt_weight * dual, dual * count
        if not warm:  # before, it is only tried on
            parts["selected"] = chosen.sum()
        return loss, {name: value.detach().float() for name, value in parts.items()}

    def _select(self, step: Step) -> Tensor:
        if not self.settings.negative_prompts:
            return judge_by_threshold(step.positive, None, step.labels, False)[0] > 0.5
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
        # drawn for all rows at once, so that neither batches nor processes change what an image gets
        if self._shifts_of != step.epoch:
            generator = self.engine.generator(COMPLEMENT, step.epoch)
            self._shifts = torch.randint(1, self.classes, self._shifts.shape, generator=generator)
            self._shifts_of = step.epoch
        return (step.labels + self._shifts[step.rows].to(step.labels.device)) % self.classes

    def _remember(self, step: Step) -> None:
        if self.memory:
            negative = step.negative if self.settings.negative_prompts else None
            judged = judge_by_threshold(step.positive, negative, step.labels, self.settings.demand_agreement)
            for name, value in zip(self.memory, judged, strict=True):
                self.memory[name][step.rows] = value.detach().float().cpu()


@torch.no_grad()
def judge_by_threshold(
    positive: Tensor, negative: Tensor | None, labels: Tensor, demand_agreement: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Judges by the learned threshold alone (Eq. 6), or by one half of softmax(s+).

    Args:
        positive: s+, (n, K).
        negative: s-, (n, K); None for softmax(s+).
        labels: (n,).
        demand_agreement: Whether the argmax is of p_clean, as the rule for real noise has it, or of s+.

    Returns:
        p_clean of the label, most likely class and its probability softmax(s+), each (n,).
    """
    likely = positive.softmax(dim=1)
    probability = likely if negative is None else clean_probability(positive, negative)
    # not of the probability, which is 1 for several classes where float32 ends
    predicted = (positive - negative if demand_agreement and negative is not None else positive).argmax(dim=1)
    confidence = likely.gather(1, predicted[:, None])[:, 0]
    return probability.gather(1, labels[:, None])[:, 0], predicted, confidence


def score_with_dual_prompts(
    settings: DeFT,
    images: LabelledImages,
    vlm: VisionLanguageModel,
    *,
    engine: Engine,
    test: LabelledImages | None = None,
) -> Scores:
    """Trains dual prompts on the images and scores each of them; see :class:`labelsieve.detect.deft.DeFT`."""
    ready = prepare(settings, images, vlm, engine=engine)
    objective = DualObjective(
        ready.settings,
        warmup=ready.schedule.warmup,
        images=len(images),
        classes=len(images.class_names),
        engine=engine,
    )
    labels, feed = torch.from_numpy(images.labels), ready.feed
    history = train(feed, labels, objective=objective, settings=ready.settings, schedule=ready.schedule)
    judged = _judge(objective, feed, ready.view)
    return ready.view.scores(
        quality=judged.quality,
        predicted=judged.predicted,
        confidence=judged.confidence,
        threshold=judged.threshold,
        estimate=judged.estimate,
        demand_agreement=settings.demand_agreement and settings.evidence == "threshold",
        history=history,
        notes=(*shortened_note(feed.learner.prompts.shortened), *judged.notes),
        settled=ready.settled,
        test_predicted=None if test is None else classify_others(feed, test),
    )


def _judge(objective: DualObjective, feed: Feed, view: FeatureView) -> Judged:
    if objective.settings.scores_from == "last-epoch":
        quality, predicted, confidence = (objective.memory[name].numpy()[view.rows] for name in objective.memory)
        return Judged(quality, predicted.astype(np.int64), confidence)
    pooled = adapted_features(feed).pooled
    text = feed.learner.final_text(negative=objective.settings.negative_prompts)
    if objective.settings.evidence == "joint":
        return _judge_jointly(feed, pooled, text, view, folds=objective.settings.folds)
    return _judge_by_threshold(feed, pooled, text, view, demand_agreement=objective.settings.demand_agreement)


Text = tuple[Tensor, Tensor | None]


@torch.inference_mode()
def _judge_by_threshold(
    feed: Feed, pooled: NDArray[np.float32], text: Text, view: FeatureView, *, demand_agreement: bool
) -> Judged:
    device, labels = feed.engine.device, feed.images.labels

    def judge(rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        positive, negative = feed.learner.similarities(torch.from_numpy(pooled[rows]).to(device), text)
        threshold = None if text[1] is None else negative
        return judge_by_threshold(positive, threshold, torch.from_numpy(labels[rows]).to(device), demand_agreement)

    quality, predicted, confidence = in_chunks(judge, view.rows, progress=feed.engine.progress)
    return Judged(quality, predicted, confidence)


def _judge_jointly(feed: Feed, pooled: NDArray[np.float32], text: Text, view: FeatureView, *, folds: int) -> Judged:
    labels, engine, classes = feed.images.labels, feed.engine, len(feed.images.class_names)
    discriminants = fit_discriminants(
        pooled,
        labels,
        rows=view.rows,
        classes=classes,
        folds=folds,
        generator=engine.generator(FOLDS),
        progress=engine.progress,
    )

    @torch.no_grad()
    def evidence(rows: NDArray[np.int64]) -> Tensor:
        features = torch.from_numpy(pooled[rows]).to(engine.device)
        positive, negative = feed.learner.similarities(features, text)
        fitted = logits_of(discriminants, rows, features)
        return torch.stack([view.logits(rows), positive, positive - negative, *fitted]).float().cpu()

    return judge_jointly(
        evidence,
        labels,
        rows=view.rows,
        classes=classes,
        kinds=EVIDENCE,
        logit_scale=view.logit_scale if view.zero_shot.knows_names else None,
        generator=engine.generator(SAMPLE),
        progress=engine.progress,
    )
