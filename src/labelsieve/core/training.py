"""Training by epochs, in both phases: a learning rate that falls as a cosine, and a checkpoint after each epoch.

A run that was killed and resumed ends with the state of an unbroken one: the checkpoint has all that training changes,
and random numbers depend on the seed and the number of the epoch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.checkpoints import RunIdentity, read_checkpoint, write_checkpoint
from labelsieve.core.engine import Engine
from labelsieve.core.errors import TrainingError, setting
from labelsieve.core.memory import reuse_allocations

Record = dict[str, Any]
Epoch = Callable[[int, list[Record], Callable[[int], None]], Record]
"""Trains one epoch and returns its record.

Gets its number from 1, the records of those before it, and a function that advances the progress by a number of steps.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """What training changes, and where it is kept.

    Attributes:
        model: Its parameters that need gradients, and its buffers.
        optimizer: Of these parameters; its rates are those of the first epoch.
        memory: Further tensors, which change in place.
        engine: Has the folder of the checkpoint.
        identity: Of the run; a checkpoint of another one is rejected.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    memory: Mapping[str, Tensor]
    engine: Engine
    identity: RunIdentity

    def run(self, epoch: Epoch, *, epochs: int, steps: int) -> list[Record]:
        """Trains, or resumes, and returns one record for each epoch.

        Args:
            epoch: Trains one epoch.
            epochs: Number of epochs.
            steps: Steps of each.

        Raises:
            CheckpointError: A checkpoint to resume from belongs to another run.
        """
        history, initial_rates = self._resume(), [group["lr"] for group in self.optimizer.param_groups]
        remaining = (epochs - len(history)) * steps
        with self.engine.progress.task("training", total=remaining, unit="steps") as advance, reuse_allocations():
            for number in range(len(history) + 1, epochs + 1):
                decay = 0.5 * (1 + math.cos(math.pi * (number - 1) / epochs))
                for group, rate in zip(self.optimizer.param_groups, initial_rates, strict=True):
                    group["lr"] = rate * decay
                history.append(epoch(number, history, advance))
                write_checkpoint(self.engine, self._tensors(), identity=self.identity, history=history)
        return history

    def _tensors(self) -> dict[str, Tensor]:
        """Returns the whole state by the names of the checkpoint."""
        tensors = {f"model.{name}": value for name, value in state_of(self.model).items()}
        tensors |= {f"memory.{name}": value for name, value in self.memory.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value.detach()
        return tensors

    def _resume(self) -> list[Record]:
        """Restores the state after the last finished epoch; returns the records of all finished ones."""
        tensors, history = read_checkpoint(self.engine, identity=self.identity)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "memory": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        restore(state_of(self.model), parts["model"])
        restore(self.memory, parts["memory"])
        parameters = dict(self.model.named_parameters())
        for key, value in parts["optimizer"].items():
            kind, _, name = key.partition(".")
            parameter = parameters[name]
            # AdamW keeps its step count on the CPU
            self.optimizer.state[parameter][kind] = value if value.ndim == 0 else value.to(parameter.device)
        return history


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns what training changes in a model: parameters that need gradients, and all buffers."""
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return trained | dict(model.named_buffers())


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into tensors of the same names."""
    for name, value in values.items():
        tensors[name].copy_(value)


def check_finite(loss: Tensor, epoch: int, *, advice: str | None = None) -> None:
    """Checks the result of an epoch.

    Args:
        loss: A number, or a sum of numbers.
        epoch: From 1.
        advice: What to use instead; None: a lower learning rate or more precision.

    Raises:
        TrainingError: It is no finite number.
    """
    if not bool(torch.isfinite(loss)):
        advice = advice or f"a lower {setting('learning_rate')} or {setting('precision')} fp32"
        raise TrainingError(f"the loss is no longer a finite number in epoch {epoch}; use {advice}")
