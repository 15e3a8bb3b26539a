"""The training loop of all trained detectors: the loss of a batch, the schedule and the epochs."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labelsieve.core.checkpoints import run_identity
from labelsieve.core.training import Record, Trainer, check_finite
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.settings import PromptTraining


@dataclass(frozen=True, eq=False)
class Step:
    """One training step: the inputs of the loss for a batch.

    Attributes:
        positive: s+, (B, K).
        negative: s-, (B, K); 0 for classes that the objective does not need.
        labels: Given labels, (B,), or tags, (B, K).
        rows: Row numbers, (B,), on the CPU.
        epoch: Number of the epoch, from 1.
    """

    positive: Tensor
    negative: Tensor
    labels: Tensor
    rows: Tensor
    epoch: int


class RequiredNegatives(NamedTuple):
    """The classes whose s- a loss needs.

    Attributes:
        trained: Classes whose s- needs gradients, ascending, on the CPU.
        others: Whether the loss also needs s- of all other classes, without gradients.
    """

    trained: Tensor
    others: bool


class Objective(ABC):
    """A loss over a batch.

    Attributes:
        memory: Tensors kept from step to step and stored in the checkpoint.
    """

    def __init__(self) -> None:
        self.memory: dict[str, Tensor] = {}

    def on_epoch_start(self, epoch: int) -> None:  # noqa: B027, most objectives have nothing to do then
        """Called in all processes at the start of an epoch, before its first step."""

    def required_negatives(self, step: Step) -> RequiredNegatives | None:
        """Returns the classes whose s- the loss of a step needs; None if it needs none.

        Args:
            step: The step, whose `negative` is not computed yet.
        """
        return None

    @abstractmethod
    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the part of this process in the loss, and sums over its images for the history.

        The parts of all processes add up to the loss of the whole batch.
        """


@dataclass(frozen=True)
class Schedule:
    """Number of epochs, of warm-up epochs and of steps per epoch, after `min_steps` has been applied."""

    epochs: int
    warmup: int
    steps_each: int

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.epochs * self.steps_each


def make_schedule(settings: PromptTraining, *, images: int) -> Schedule:
    """Returns a schedule of at least `min_steps` steps, with the warm-up scaled in proportion to the epochs.

    A setting of 0 epochs stays 0. `auto` has to be resolved before.
    """
    if settings.epochs == 0 or images == 0:
        return Schedule(0, 0, 0)
    steps = math.ceil(images / int(settings.batch_size))
    epochs = max(settings.epochs, math.ceil(settings.min_steps / steps))
    warmup = min(epochs, round(settings.warmup_epochs * epochs / settings.epochs))
    return Schedule(epochs, warmup, steps)


def train(
    batches: BatchSource, labels: Tensor, *, objective: Objective, settings: PromptTraining, schedule: Schedule
) -> tuple[Mapping[str, Any], ...]:
    """Trains the learner in place and returns one record per epoch.

    Args:
        batches: The batches, with the learner and the engine.
        labels: Given labels of all images, (N,), or their tags, (N, K).
        objective: The loss.
        settings: Settings of the optimiser and the batch size.
        schedule: From :func:`make_schedule`.

    Raises:
        TrainingError: The loss is not finite.
        CheckpointError: The checkpoint to resume from belongs to other data or settings.
    """
    learner, engine = batches.learner, batches.engine
    optimizer = torch.optim.SGD(
        learner.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    identity = run_identity(settings, engine, data=batches.images.fingerprint, model=learner.vlm.fingerprint)
    trainer = Trainer(model=learner, optimizer=optimizer, memory=objective.memory, engine=engine, identity=identity)

    def epoch(number: int, _history: list[Record], advance: Callable[[int], None]) -> Record:
        objective.on_epoch_start(number)
        record = _epoch(batches, labels, objective, optimizer, number, advance)
        if number == schedule.epochs:
            _check_outcome(learner, number)
        return record

    with batches.attached():
        return tuple(trainer.run(epoch, epochs=schedule.epochs, steps=schedule.steps_each))


def _epoch(
    batches: BatchSource,
    labels: Tensor,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    advance: Any,
) -> dict[str, Any]:
    engine, learner, started = batches.engine, batches.learner, time.perf_counter()
    sums: dict[str, Tensor] = {}
    for number, (rows, pooled) in enumerate(batches.epoch(epoch)):
        batch_rows = torch.from_numpy(rows)
        similarities = learner.similarities(pooled, learner.text(negative=False))
        step = Step(*similarities, labels=labels[batch_rows].to(engine.device), rows=batch_rows, epoch=epoch)
        read = objective.required_negatives(step)
        if read is not None and len(rows):  # a process may have no images of the last batch
            step = replace(step, negative=learner.negative_similarities(pooled, read.trained, others=read.others))
        loss, seen = objective(step)
        optimizer.zero_grad()
        if loss.requires_grad:  # without images of the last batch there may be no gradient
            loss.backward()
        engine.sum_gradients(learner)
        optimizer.step()
        # on the device of the loss: processes on GPUs cannot sum CPU tensors
        counts = {"images": loss.new_tensor(len(rows)), "steps": loss.new_ones(())}
        for name, value in {**counts, "loss": loss.detach(), **seen}.items():
            sums[name] = sums.get(name, 0) + value
        if number % 50 == 0:  # not at each step, because reading a value synchronises with the GPU
            check_finite(sums["loss"], epoch)
        advance(1)
    totals = {name: float(engine.total(value)) for name, value in sums.items()}
    check_finite(torch.tensor(totals["loss"]), epoch)
    images = max(totals.pop("images"), 1.0)
    record = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
    steps = totals.pop("steps") / engine.accelerator.num_processes
    record |= {"loss": totals.pop("loss") / steps, **{name: value / images for name, value in totals.items()}}
    return {**record, "seconds": round(time.perf_counter() - started, 3)}


@torch.inference_mode()
def _check_outcome(learner: Learner, epoch: int) -> None:
    """Checks the weights after the last step, which no loss covers."""
    for features in learner.text():
        if features is not None:
            check_finite(features.sum(), epoch)
