"""Plain training with cross-entropy on all labels: what small-loss and GMM judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.data.images import LabelledImages
from labelsieve.detect.base import Scores
from labelsieve.detect.learner import Learner, adapted_features, classify_others
from labelsieve.detect.losses import similarity_loss
from labelsieve.detect.planning import prepare
from labelsieve.detect.settings import Training
from labelsieve.detect.training import Step, train
from labelsieve.detect.view import FeatureView
from labelsieve.detect.zero_shot import by_probability, in_chunks, shortened_note
from labelsieve.engine import Engine
from labelsieve.vlm.base import VisionLanguageModel


class PlainObjective:
    """Cross-entropy of s+ with the given labels, mean over all images (Eq. 8 in warm-up)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.memory: dict[str, Tensor] = {}

    def reads(self, step: Step) -> None:
        """Returns that no s- is read."""

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss of the batch."""
        count = self.engine.total(step.labels.new_tensor(len(step.labels))).clamp(min=1)
        return similarity_loss(step.positive, labels=step.labels, count=count), {}


@dataclass(frozen=True, eq=False)
class PlainResult:
    """What a plainly trained model says of the readable images.

    Attributes:
        view: The untouched features, which know the rows.
        quality: Probability of the given label, exp(-loss).
        predicted: Most likely class.
        confidence: Probability of that class.
        history: One record for each epoch.
        notes: Remarks for the user.
        settled: What settings of `auto` became, by their names.
        test_predicted: Most likely class of each test image, -1 where unreadable; None without test images.
    """

    view: FeatureView
    quality: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    history: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    settled: Mapping[str, Any]
    test_predicted: NDArray[np.int64] | None

    def scores(self, *, quality: NDArray[Any], issue: NDArray[np.bool_] | None = None) -> Scores:
        """Returns scores with another quality, and the issues themselves unless they are those at most one half."""
        return self.view.scores(
            quality=quality,
            predicted=self.predicted,
            confidence=self.confidence,
            issue=issue,
            history=self.history,
            notes=self.notes,
            settled=self.settled,
            test_predicted=self.test_predicted,
        )


def train_plainly(
    settings: Training,
    images: LabelledImages,
    vlm: VisionLanguageModel,
    *,
    engine: Engine,
    test: LabelledImages | None = None,
) -> PlainResult:
    """Trains positive prompts and the module on the tower on all labels, then scores plain images."""
    ready = prepare(settings, images, vlm, engine=engine)
    view, feed, labels = ready.view, ready.feed, torch.from_numpy(images.labels)
    history = train(feed, labels, objective=PlainObjective(engine), settings=ready.settings, schedule=ready.schedule)
    pooled = adapted_features(feed).pooled
    quality, predicted, confidence = _judge(feed.learner, pooled, view.rows, images.labels)
    notes = shortened_note(feed.learner.prompts.shortened)
    tested = None if test is None else classify_others(feed, test)
    return PlainResult(view, quality, predicted, confidence, history, notes, ready.settled, tested)


@torch.inference_mode()
def _judge(
    learner: Learner, pooled: NDArray[np.float32], rows: NDArray[np.int64], labels: NDArray[np.int64]
) -> list[NDArray[Any]]:
    text = learner.text(negative=False)

    def judge(part: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        positive, _ = learner.similarities(torch.from_numpy(pooled[part]).to(learner.engine.device), text)
        return by_probability(positive, labels[part])

    return in_chunks(judge, rows)
