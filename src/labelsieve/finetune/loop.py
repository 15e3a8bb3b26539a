"""The training of phase 2, with an evaluation after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from labelsieve.core.errors import setting
from labelsieve.core.memory import checkpointed_chunks
from labelsieve.core.seeds import Purpose
from labelsieve.core.training import Record, Trainer, check_finite, restore, state_of
from labelsieve.data.input.batches import Augment, batches, unit
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.evaluation import evaluate, training_losses
from labelsieve.finetune.job import Job, training_mode
from labelsieve.finetune.losses import Loss
from labelsieve.finetune.settings import Adaptation
from labelsieve.vlm.features import image_features


class Trained(NamedTuple):
    """The result of training.

    Attributes:
        start: Metrics of the pre-trained features with the initial head; see
            :func:`labelsieve.finetune.evaluation.evaluate`.
        history: One record for each epoch.
        saved_epoch: The epoch whose weights are kept: with validation the first of the best epochs, where 0 is the
            start; else the last.
    """

    start: dict[str, float]
    history: list[dict[str, Any]]
    saved_epoch: int


def train(job: Job) -> Trained:
    """Trains the backbone of a job in place; it ends with the weights of the saved epoch.

    Raises:
        TrainingError: The loss is no longer finite.
        RunError: A checkpoint to resume from belongs to another run.
    """
    settings, backbone = job.settings, job.backbone
    loss = job.kind.make_loss(settings, images=len(job.images), classes=len(job.images.class_names))
    optimizer = _optimizer(backbone, settings)
    start, score = evaluate(job), f"validation_{job.kind.score_name}"
    best = {name: value.clone() for name, value in state_of(backbone.model).items()} if len(job.held_out) else {}
    memory = dict(loss.memory) | {f"best.{name}": value for name, value in best.items()}
    trainer = Trainer(
        model=backbone.model, optimizer=optimizer, memory=memory, engine=job.engine, identity=job.identity
    )
    passes = _passes(settings, len(job.rows))

    def epoch(number: int, history: list[Record], advance: Callable[[int], None]) -> Record:
        if number > settings.warmup_epochs:
            loss.on_epoch_start(partial(_checked_losses, number, job))
        record = _epoch(job, loss, optimizer, number, passes, advance) | evaluate(job)
        if best and _best_epoch(start, [*history, record], score) == number:
            restore(best, state_of(backbone.model))
        return record

    steps = steps_of(settings, images=len(job.rows)) // max(1, settings.epochs)
    history = trainer.run(epoch, epochs=settings.epochs, steps=steps)
    restore(state_of(backbone.model), best)
    return Trained(start, history, _best_epoch(start, history, score) if best else len(history))


def _passes(settings: Adaptation, images: int) -> int:
    """Returns the number of passes over the images in an epoch."""
    steps = math.ceil(images / settings.batch_size)
    return max(1, math.ceil(settings.min_steps / (steps * settings.epochs))) if settings.epochs else 0


def steps_of(settings: Adaptation, *, images: int) -> int:
    """Returns the total number of training steps on some images, at least one."""
    return settings.epochs * _passes(settings, images) * math.ceil(images / settings.batch_size)


def _best_epoch(start: Mapping[str, float], history: Sequence[Mapping[str, Any]], score: str) -> int:
    values = [record[score] for record in (start, *history)]
    return values.index(max(values))


def _optimizer(backbone: Backbone, settings: Adaptation) -> torch.optim.Optimizer:
    head = {id(parameter) for parameter in backbone.head.parameters()}
    trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
    rates = {True: settings.head_learning_rate, False: settings.learning_rate}
    groups = [
        {"params": [p for p in trained if (id(p) in head) is is_head], "lr": rate} for is_head, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _epoch(
    job: Job, loss: Loss, optimizer: torch.optim.Optimizer, epoch: int, passes: int, advance: Any
) -> dict[str, Any]:
    engine, started = job.engine, time.perf_counter()
    labels, weights = torch.from_numpy(job.selection.labels), torch.from_numpy(job.selection.weights)
    total, images, steps = torch.zeros((), device=engine.device), 0, 0
    # measured before random numbers are drawn
    chunk_size = len(job.rows) if job.uses_cached_features else job.chunk_size
    with training_mode(job.backbone, job.engine, epoch):
        for number in range((epoch - 1) * passes + 1, epoch * passes + 1):
            synchronise = _process_sync(job, loss)
            for rows, inputs in _batches(job, number):
                optimizer.zero_grad()
                chosen = loss.selects(rows)
                count = engine.count(int(chosen.sum()))
                if len(rows):  # a process may have no images of a small batch
                    logits = _logits(job, inputs, chunk_size=chunk_size)
                    losses = loss(logits, labels[rows].to(logits.device), rows)
                    value = (losses * (weights[rows] * chosen).to(logits.device)).sum() / max(count, 1)
                    value.backward()
                    total += value.detach()
                engine.sum_gradients(job.backbone.model)
                optimizer.step()
                images, steps = images + count, steps + 1
                if steps % 50 == 1:  # not at each step, since it synchronises with the GPU
                    _check(total, epoch)
                advance(1)
            synchronise()
    mean = engine.total(total) / max(steps, 1)
    _check(mean, epoch)
    rates = {"learning_rate": optimizer.param_groups[-1]["lr"], "head_learning_rate": optimizer.param_groups[0]["lr"]}
    return {
        "epoch": epoch,
        **rates,
        "loss": float(mean),
        "steps": steps,
        "images": images,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _batches(job: Job, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields rows and augmented images, or cached features, of one shuffled pass over the data."""
    rows, engine, backbone = job.rows, job.engine, job.backbone
    order = rows[torch.randperm(len(rows), generator=engine.generator(Purpose.FINETUNING_ORDER, number)).numpy()]
    # of nearly equal size: batch normalisation fails on a last batch of one image
    parts = np.array_split(order, math.ceil(len(order) / job.settings.batch_size))
    process_parts = [np.asarray(engine.share(part.tolist()), dtype=np.int64) for part in parts]
    if job.uses_cached_features:
        pooled = image_features(job.images, backbone, engine=engine).pooled
        for part_rows in process_parts:
            yield torch.from_numpy(part_rows), torch.from_numpy(pooled[part_rows])
        return
    augment = Augment(backbone.image_size, seed=engine.seed, epoch=number)
    for batch in batches(job.crop_source, process_parts, transform=augment, device=engine.device):
        yield batch.rows, batch.inputs


def _logits(job: Job, inputs: Tensor, *, chunk_size: int) -> Tensor:
    backbone, engine = job.backbone, job.engine
    inputs = inputs.to(engine.device)
    if job.uses_cached_features:
        return backbone.head(inputs)  # type: ignore[no-any-return]

    def logits(first: int, last: int) -> Tensor:
        with engine.autocast():
            return backbone.logits(backbone.normalise(unit(inputs[first:last]))).float()

    return checkpointed_chunks(logits, count=len(inputs), chunk_size=chunk_size, device=engine.device)


def _process_sync(job: Job, loss: Loss) -> Callable[[], None]:
    """Returns a function that synchronises the state of the processes after a pass."""
    engine = job.engine
    if engine.accelerator.num_processes == 1:
        return lambda: None
    initial = {name: value.clone() for name, value in loss.memory.items()}

    def synchronise() -> None:
        for name, value in loss.memory.items():  # each row is processed by one process only
            value.copy_(initial[name] + engine.total((value - initial[name]).to(engine.device)).cpu())
        for buffer in job.backbone.model.buffers():
            if buffer.is_floating_point():  # the statistics of batch normalisation
                buffer.copy_(engine.total(buffer) / engine.accelerator.num_processes)

    return synchronise


def _checked_losses(epoch: int, job: Job) -> tuple[Tensor, Tensor]:
    """Returns :func:`labelsieve.finetune.evaluation.training_losses`, after checking that they are finite."""
    rows, values = training_losses(job)
    _check(values.sum(), epoch - 1)
    return rows, values


def _check(loss: Tensor, epoch: int) -> None:
    rates = f"a lower {setting('learning_rate')}, a lower {setting('head_learning_rate')}"
    check_finite(loss, epoch, advice=f"{rates} or {setting('precision')} fp32")
