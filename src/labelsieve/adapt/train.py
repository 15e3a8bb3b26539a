"""The training loop of phase 2, with a checkpoint after each epoch, and how well a classifier does.

A run that was killed and resumed gives the weights of an unbroken one: all that changes is in the checkpoint, and
everything random depends on the seed and the number of the epoch only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labelsieve.adapt.backbones import Backbone
from labelsieve.adapt.judging import accuracies, losses
from labelsieve.adapt.losses import LOSSES, Loss
from labelsieve.adapt.selection import Selection
from labelsieve.adapt.settings import Adaptation
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import Augment, batches, crop_area, unit
from labelsieve.data.pixels import Pictures, kept_pictures
from labelsieve.data.plain import plain_pictures
from labelsieve.detect.training import Owner, check_finite, read_checkpoint, write_checkpoint
from labelsieve.engine import Engine
from labelsieve.memory import fitting, in_parts, keeping_room
from labelsieve.vlm.features import image_features

# Purposes of random generators, apart from those of phase 1; see also tuning.py.
ORDER, DROPOUT, HELD_OUT = 22, 23, 24
# Bytes of activations, on any machine, of a backbone that draws random numbers while it is trained.
_ROOM = 2 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is trained, on what, and how.

    Attributes:
        backbone: Changed in place.
        images: N images.
        selection: Which of them, with which labels and weights.
        held_out: Rows of the selection that are kept for validation.
        test: Images that tell how well it does, with the class names of `images`; or None.
        settings: The settings.
        engine: Device, precision, processes, seed, checkpoints, progress.
        owner: What a checkpoint of all of this belongs to.
    """

    backbone: Backbone
    images: LabelledImages
    selection: Selection
    held_out: NDArray[np.int64]
    test: LabelledImages | None
    settings: Adaptation
    engine: Engine
    owner: Owner

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows to train on."""
        return np.setdiff1d(self.selection.rows, self.held_out)

    @cached_property
    def pictures(self) -> Pictures:
        """What epochs take their crops from."""
        area = crop_area(self.backbone.image_size)
        return kept_pictures(self.images, area=area, accelerator=self.engine.accelerator)

    def plain(self, images: LabelledImages) -> LabelledImages | Pictures:
        """Returns images as the backbone prepares them, kept for all epochs; as they are where that cannot be."""
        if images.pixels_fingerprint not in self._plain:
            found = plain_pictures(images, self.backbone, accelerator=self.engine.accelerator)
            self._plain[images.pixels_fingerprint] = images if found is None else found
        return self._plain[images.pixels_fingerprint]

    @cached_property
    def _plain(self) -> dict[str, LabelledImages | Pictures]:
        return {}

    @cached_property
    def at_once(self) -> int:
        """How many images pass the backbone at a time: all of a batch, or as many as fit into memory.

        Batch normalisation needs all of them together. What layers drop depends on the parts, so that these must not
        depend on the machine where there are such layers.
        """
        backbone, engine = self.backbone, self.engine
        most = math.ceil(self.settings.batch_size / int(engine.accelerator.num_processes))
        if any(isinstance(module, _BatchNorm) for module in backbone.model.modules()):
            return most

        def logits(pixels: Tensor) -> Tensor:
            with engine.autocast():
                return backbone.logits(backbone.normalise(pixels))

        one = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=engine.device)
        return fitting(logits, one, most=most, room=_ROOM if _draws(self, lambda: logits(one)) else None)

    @property
    def on_features(self) -> bool:
        """Whether the tower stands still, so that its features are computed once."""
        return self.settings.tune == "linear"


def hold_out(selection: Selection, share: float, *, engine: Engine) -> NDArray[np.int64]:
    """Draws a share of the rows of each class, rounded down."""
    labels, drawn = selection.labels[selection.rows], [np.empty(0, dtype=np.int64)]
    generator = engine.generator(HELD_OUT)
    for label in np.unique(labels):
        own = selection.rows[labels == label]
        drawn.append(own[torch.randperm(len(own), generator=generator).numpy()[: int(share * len(own))]])
    return np.sort(np.concatenate(drawn))


class Trained(NamedTuple):
    """What was seen while training.

    Attributes:
        start: Accuracies of the pre-trained features with the first head; see :func:`accuracies`.
        history: One record for each epoch.
        saved_epoch: The epoch whose weights are kept: with validation the first of those that did best on it, where 0
            is the start; else the last.
    """

    start: dict[str, float]
    history: list[dict[str, Any]]
    saved_epoch: int


def train(job: Job) -> Trained:
    """Trains the backbone of a job in place; it ends with the weights of the saved epoch.

    Raises:
        TrainingError: The loss is no longer finite.
        RunError: A checkpoint to resume from belongs to something else.
    """
    settings, backbone = job.settings, job.backbone
    loss = LOSSES[settings.loss](len(job.images), len(job.images.class_names))
    optimizer = _optimizer(backbone, settings)
    start = accuracies(job)
    best = _copy(backbone) if len(job.held_out) else {}
    tensors, history = read_checkpoint(job.engine, owner=job.owner)
    best = _restore(tensors, backbone, optimizer, loss) or best
    passes, steps = _passes(settings, len(job.rows)), steps_of(settings, images=len(job.rows))
    left = steps - len(history) * (steps // max(1, settings.epochs))
    with job.engine.progress.task("training", total=left, unit="steps") as advance, keeping_room():
        for epoch in range(len(history) + 1, settings.epochs + 1):
            decay = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * decay
            if epoch > settings.warmup_epochs:
                loss.begins(partial(_losses_before, epoch, job))
            record = _epoch(job, loss, optimizer, epoch, passes, advance)
            history.append(record | accuracies(job))
            if best and _best_epoch(start, history) == epoch:
                best = _copy(backbone)
            _save(job, optimizer, loss, history, best)
    if best:
        nn.Module.load_state_dict(backbone.model, best, strict=False)
    return Trained(start, history, _best_epoch(start, history) if best else len(history))


def _passes(settings: Adaptation, images: int) -> int:
    """Returns how many times an epoch passes over some images."""
    steps = math.ceil(images / settings.batch_size)
    return max(1, math.ceil(settings.min_steps / (steps * settings.epochs))) if settings.epochs else 0


def steps_of(settings: Adaptation, *, images: int) -> int:
    """Returns how many steps training on some images, at least one, takes in all."""
    return settings.epochs * _passes(settings, images) * math.ceil(images / settings.batch_size)


def _best_epoch(start: Mapping[str, float], history: Sequence[Mapping[str, Any]]) -> int:
    scores = [record["validation_accuracy"] for record in (start, *history)]
    return scores.index(max(scores))


def _optimizer(backbone: Backbone, settings: Adaptation) -> torch.optim.Optimizer:
    head = {id(parameter) for parameter in backbone.head.parameters()}
    trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
    rates = {True: settings.head_learning_rate, False: settings.learning_rate}
    groups = [
        {"params": [p for p in trained if (id(p) in head) is is_head], "lr": rate, "initial_lr": rate}
        for is_head, rate in rates.items()
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
    total, seen, steps = torch.zeros((), device=engine.device), 0, 0
    at_once = len(job.rows) if job.on_features else job.at_once  # found out before random numbers are drawn
    with _training(job, epoch):
        for number in range((epoch - 1) * passes + 1, epoch * passes + 1):
            join = _joining(job, loss)
            for rows, inputs in _feed(job, number):
                optimizer.zero_grad()
                chosen = loss.selects(rows)
                count = engine.count(int(chosen.sum()))
                if len(rows):  # with several processes, one may get none of a small batch
                    logits = _logits(job, inputs, at_once=at_once)
                    each = loss(logits, labels[rows].to(logits.device), rows)
                    value = (each * (weights[rows] * chosen).to(logits.device)).sum() / max(count, 1)
                    value.backward()
                    total += value.detach()
                engine.sum_gradients(job.backbone.model)
                optimizer.step()
                seen, steps = seen + count, steps + 1
                if steps % 50 == 1:  # not at each step: reading a number off a GPU waits for it
                    _check(total, epoch)
                advance(1)
            join()
    mean = engine.total(total) / max(steps, 1)
    _check(mean, epoch)
    rates = {"learning_rate": optimizer.param_groups[-1]["lr"], "head_learning_rate": optimizer.param_groups[0]["lr"]}
    return {
        "epoch": epoch,
        **rates,
        "loss": float(mean),
        "steps": steps,
        "images": seen,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _feed(job: Job, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields rows and augmented pictures, or cached features, of one shuffled pass over the data."""
    rows, engine, backbone = job.rows, job.engine, job.backbone
    order = rows[torch.randperm(len(rows), generator=engine.generator(ORDER, number)).numpy()]
    # of nearly the same size: a rest of a single image would be too little for batch normalisation
    parts = np.array_split(order, math.ceil(len(order) / job.settings.batch_size))
    mine = [np.asarray(engine.share(part.tolist()), dtype=np.int64) for part in parts]
    if job.on_features:
        pooled = image_features(job.images, backbone, engine=engine).pooled
        for own in mine:
            yield torch.from_numpy(own), torch.from_numpy(pooled[own])
        return
    augment = Augment(backbone.image_size, seed=engine.seed, epoch=number)
    for batch in batches(job.pictures, mine, transform=augment, device=engine.device):
        yield batch.rows, batch.inputs


def _logits(job: Job, inputs: Tensor, *, at_once: int) -> Tensor:
    backbone, engine = job.backbone, job.engine
    inputs = inputs.to(engine.device)
    if job.on_features:
        return backbone.head(inputs)  # type: ignore[no-any-return]

    def logits(first: int, last: int) -> Tensor:
        with engine.autocast():
            return backbone.logits(backbone.normalise(unit(inputs[first:last]))).float()

    return in_parts(logits, count=len(inputs), at_once=at_once, device=engine.device)


@contextmanager
def _training(job: Job, epoch: int) -> Iterator[None]:
    """Sets the training mode, and draws what layers drop from the seed and the epoch."""
    model, engine = job.backbone.model, job.engine
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not all(p.requires_grad for p in module.parameters()):
            module.eval()  # where the layer is frozen, so are its statistics
    devices = [engine.device.index or 0] if engine.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            generator = engine.generator(DROPOUT, epoch, engine.accelerator.process_index)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            yield
    finally:
        model.eval()


@torch.no_grad()
def _draws(job: Job, work: Callable[[], Any]) -> bool:
    """Returns whether work with the backbone draws random numbers in training mode, as dropout does."""
    device = job.engine.device

    def state() -> Tensor:
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    with _training(job, 0):
        before = state()
        work()
        return not torch.equal(before, state())


def _joining(job: Job, loss: Loss) -> Callable[[], None]:
    """Returns what brings together, after a pass, what each of several processes changed on its own."""
    engine = job.engine
    if engine.accelerator.num_processes == 1:
        return lambda: None
    before = {name: value.clone() for name, value in loss.memory.items()}

    def join() -> None:
        for name, value in loss.memory.items():  # in one pass a row is seen by one process only
            value.copy_(before[name] + engine.total((value - before[name]).to(engine.device)).cpu())
        for buffer in job.backbone.model.buffers():
            if buffer.is_floating_point():  # the statistics of batch normalisation
                buffer.copy_(engine.total(buffer) / engine.accelerator.num_processes)

    return join


def _losses_before(epoch: int, job: Job) -> tuple[Tensor, Tensor]:
    """Returns what :func:`labelsieve.adapt.judging.losses` does, and checks what the last epoch made."""
    rows, found = losses(job)
    _check(found.sum(), epoch - 1)
    return rows, found


def _check(loss: Tensor, epoch: int) -> None:
    check_finite(loss, epoch, rates="--learning-rate, a lower --head-learning-rate")


def _state(backbone: Backbone) -> dict[str, Tensor]:
    """Returns what training changes: the trained parameters and all statistics."""
    whole = backbone.model.state_dict(keep_vars=True)
    return {
        name: value.detach()
        for name, value in whole.items()
        if value.requires_grad or not isinstance(value, nn.Parameter)
    }


def _copy(backbone: Backbone) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in _state(backbone).items()}


def _save(
    job: Job, optimizer: torch.optim.Optimizer, loss: Loss, history: list[dict[str, Any]], best: dict[str, Tensor]
) -> None:
    tensors = {f"model.{name}": value for name, value in _state(job.backbone).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"memory.{name}": value for name, value in loss.memory.items()}
    for name, parameter in job.backbone.model.named_parameters():
        kept = optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{key}.{name}": value for key, value in kept.items() if isinstance(value, Tensor)}
    write_checkpoint(job.engine, tensors, owner=job.owner, history=history)


def _restore(
    tensors: Mapping[str, Tensor], backbone: Backbone, optimizer: torch.optim.Optimizer, loss: Loss
) -> dict[str, Tensor]:
    """Puts a checkpoint back and returns the weights that were best so far; without one there is nothing to do."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "memory": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    # that of torch: the wrapper of timm has one of its own, which takes all names for its inner model's
    nn.Module.load_state_dict(backbone.model, parts["model"], strict=False)
    for name, value in parts["memory"].items():
        loss.memory[name].copy_(value)
    parameters = dict(backbone.model.named_parameters())
    for key, value in parts["optimizer"].items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        # the count of steps stays where AdamW keeps it, on the CPU
        optimizer.state[parameter][kind] = value if value.ndim == 0 else value.to(parameter.device)
    return parts["best"]
