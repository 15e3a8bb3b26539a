"""Cross-entropy training on all or some of the labels, for small-loss and GMM."""

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
        ready: The prepared training.
    """

    def __init__(self, ready: Prepared[Any]) -> None:
        super().__init__()
        self.ready = ready

    def selects(self, step: Step) -> Tensor | None:
        """Returns the mask of the images to learn from, (B,), bool; None for all."""
        return None

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss of the batch and, with a selection, the number of selected images."""
        chosen = self.selects(step)
        learned = step.labels.new_tensor(len(step.labels)) if chosen is None else chosen.sum()
        count = self.ready.batches.engine.total(learned).clamp(min=1)
        loss = similarity_loss(step.positive, labels=step.labels, selected=chosen, count=count)
        return loss, {} if chosen is None else {"selected": learned.float()}


class SmallestLosses(CrossEntropyObjective):
    """Cross-entropy, mean over the images of a batch with the smallest losses (Han et al., NeurIPS 2018).

    Of B images, the `int((1 - r) B)` with the smallest losses are selected. The share r that is left out rises linearly
    from 0 in the first warm-up epoch to the noise rate in the last one. With one warm-up epoch, it is 0 in that epoch
    and the noise rate afterwards.

    Args:
        ready: The prepared training.
        noise_rate: Share of wrong labels.
    """

    def __init__(self, ready: Prepared[Any], *, noise_rate: float) -> None:
        super().__init__(ready)
        self.noise_rate = noise_rate

    def left_out(self, epoch: int) -> float:
        """Returns r of an epoch."""
        warmup = self.ready.schedule.warmup
        return self.noise_rate * ((epoch - 1) / max(1, warmup - 1) if epoch <= warmup else 1.0)

    @torch.no_grad()
    def selects(self, step: Step) -> Tensor:
        """Returns the mask of the images with the smallest losses; they are ranked over all processes together."""
        losses = cross_entropy(step.positive, step.labels, reduction="none")
        all_losses = self.ready.batches.engine.gather(losses)
        count = int((1 - self.left_out(step.epoch)) * len(all_losses))
        # by value: images with a loss equal to the limit are all kept
        return losses <= all_losses.sort().values[count - 1] if count else torch.zeros_like(losses, dtype=torch.bool)


class SmallComponent(CrossEntropyObjective):
    """Cross-entropy, mean over the images that a mixture of two Gaussians considers clean (Li et al., ICLR 2020).

    After warm-up, the mixture is fitted before each epoch to the losses of all un-augmented images.
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
        """Returns the mask of the images in the component with the smaller mean; None during warm-up."""
        return None if self.chosen is None else self.chosen[step.rows].to(step.labels.device)


QualityFunction = Callable[[NDArray[np.float32]], Mapping[str, Any]]
"""Takes the probability of each given label, (n,), and returns `quality` and optionally `issue`, (n,) each."""


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
        rule: Computes the quality; also the issues, unless these are the labels with a quality of at most one half.
        objective: Creates the loss.
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
    """Returns the probability of each readable image's label, its most likely class and that probability, (n,) each."""
    learner, pooled = batches.learner, adapted_features(batches).pooled
    text = learner.final_text(negative=False)

    def score_rows(part: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        positive, _ = learner.similarities(torch.from_numpy(pooled[part]).to(learner.engine.device), text)
        return by_probability(positive, labels[part])

    return in_chunks(score_rows, batches.features.readable, progress=batches.engine.progress)


def losses_of(quality: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the cross-entropy of labels with the given probabilities, (n,)."""
    return -np.log(np.maximum(quality.astype(np.float64), 1e-30))
