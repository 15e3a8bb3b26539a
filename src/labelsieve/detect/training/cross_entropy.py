"""Cross-entropy training on the labels, all or some of them, whose losses small-loss and GMM use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from labelsieve.core.training import check_finite
from labelsieve.detect.chunks import in_chunks
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.losses import similarity_loss
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.autoconfig import Prepared, prepare
from labelsieve.detect.training.learner import BatchSource, adapted_features, classify_others
from labelsieve.detect.training.loop import Objective, Step, train
from labelsieve.detect.training.settings import Training
from labelsieve.detect.zero_shot import by_probability, shortened_note


class CrossEntropyObjective(Objective):
    """Cross-entropy of s+ with the given labels (Eq. 8), mean over all images of a batch.

    Args:
        ready: What is trained, and how long.
    """

    def __init__(self, ready: Prepared[Any]) -> None:
        super().__init__()
        self.ready = ready

    def selects(self, step: Step) -> Tensor | None:
        """Returns which images of the batch are learned from, (B,), bool; None stands for all."""
        return None

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss of the batch, and how many images are selected where that is not all."""
        chosen = self.selects(step)
        learned = step.labels.new_tensor(len(step.labels)) if chosen is None else chosen.sum()
        count = self.ready.batches.engine.total(learned).clamp(min=1)
        loss = similarity_loss(step.positive, labels=step.labels, selected=chosen, count=count)
        return loss, {} if chosen is None else {"selected": learned.float()}


class SmallestLosses(CrossEntropyObjective):
    """Cross-entropy, mean over those images of a batch that have the smallest losses (Han et al., NeurIPS 2018).

    Of B images the `int((1 - r) B)` with the smallest losses are learned from. The share r that is left out rises
    evenly from 0 in the first epoch of warm-up to the noise rate in its last; with a warm-up of one epoch, it is 0 in
    that and the noise rate from then on.

    Args:
        ready: What is trained, and how long.
        noise_rate: Share of wrong labels.
    """

    def __init__(self, ready: Prepared[Any], *, noise_rate: float) -> None:
        super().__init__(ready)
        self.noise_rate = noise_rate

    def left_out(self, epoch: int) -> float:
        """Returns r in an epoch."""
        warmup = self.ready.schedule.warmup
        return self.noise_rate * ((epoch - 1) / max(1, warmup - 1) if epoch <= warmup else 1.0)

    @torch.no_grad()
    def selects(self, step: Step) -> Tensor:
        """Returns the images with the smallest losses in the batch of all processes together."""
        losses = cross_entropy(step.positive, step.labels, reduction="none")
        all_losses = self.ready.batches.engine.gather(losses)
        count = int((1 - self.left_out(step.epoch)) * len(all_losses))
        # by value: of equal losses at the limit all are kept
        return losses <= all_losses.sort().values[count - 1] if count else torch.zeros_like(losses, dtype=torch.bool)


class SmallComponent(CrossEntropyObjective):
    """Cross-entropy, mean over the images that a mixture of two Gaussians considers clean (Li et al., ICLR 2020).

    After warm-up the mixture is fitted again before each epoch, to the losses of all un-augmented images.
    """

    def __init__(self, ready: Prepared[Any]) -> None:
        super().__init__(ready)
        self.chosen: Tensor | None = None

    def on_epoch_start(self, epoch: int) -> None:
        """Fits the mixture."""
        if epoch > self.ready.schedule.warmup:
            batches = self.ready.batches
            losses = losses_of(label_probabilities(batches, self.ready.labels)[0])
            check_finite(torch.from_numpy(losses).sum(), epoch - 1)
            self.chosen = torch.zeros(len(batches.images), dtype=torch.bool)
            self.chosen[batches.features.readable] = torch.from_numpy(small_mean_posterior(losses) > 0.5)

    def selects(self, step: Step) -> Tensor | None:
        """Returns the images of the component with the smaller mean; all in warm-up."""
        return None if self.chosen is None else self.chosen[step.rows].to(step.labels.device)


QualityFunction = Callable[[NDArray[np.float32]], Mapping[str, Any]]
"""Takes the probability of each given label, (n,), and returns `quality` and perhaps `issue`, (n,) each."""


def train_and_score(
    settings: Training,
    inputs: DetectorInputs,
    *,
    rule: QualityFunction,
    objective: Callable[[Prepared[Any]], CrossEntropyObjective],
) -> Scores:
    """Trains prompts with cross-entropy and scores every image.

    Args:
        settings: How to train.
        inputs: Images, model and engine.
        rule: Makes quality, and the issues themselves unless they are those at most one half, of what was learned.
        objective: Makes the loss.
    """
    ready = prepare(settings, inputs)
    batches, labels = ready.batches, torch.from_numpy(inputs.labels)
    history = train(batches, labels, objective=objective(ready), settings=ready.settings, schedule=ready.schedule)
    probability, predicted, confidence = label_probabilities(batches, inputs.labels)
    return inputs.scores(
        **rule(probability),
        predicted=predicted,
        confidence=confidence,
        history=history,
        notes=shortened_note(batches.learner.prompts.shortened),
        resolved=ready.resolved,
        test_predicted=None if inputs.test is None else classify_others(batches, inputs.test),
    )


@torch.inference_mode()
def label_probabilities(batches: BatchSource, labels: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Returns probability of the given label, most likely class and its probability of the readable images, (n,)."""
    learner, pooled = batches.learner, adapted_features(batches).pooled
    text = learner.final_text(negative=False)

    def score_rows(part: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        positive, _ = learner.similarities(torch.from_numpy(pooled[part]).to(learner.engine.device), text)
        return by_probability(positive, labels[part])

    return in_chunks(score_rows, batches.features.readable, progress=batches.engine.progress)


def losses_of(quality: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the cross-entropy of labels with these probabilities, (n,)."""
    return -np.log(np.maximum(quality.astype(np.float64), 1e-30))
