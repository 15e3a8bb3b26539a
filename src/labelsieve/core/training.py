"""The epoch loop of both phases: a cosine schedule of the learning rate, and a checkpoint after each epoch.

A resumed run ends in the same state as an uninterrupted one: the checkpoint contains everything that training changes,
and random numbers depend only on the seed and the number of the epoch.
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

Arguments: number of the epoch, from 1; records of earlier epochs; function that advances the progress by some steps.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """The state that training changes, and its checkpoint.

    Attributes:
        model: The trained model: its parameters that need gradients, and its buffers.
        optimizer: Optimiser of these parameters, with the learning rates of the first epoch.
        memory: Further tensors that change in place.
        engine: Provides the folder of the checkpoint.
        identity: Identity of the run; a checkpoint of another run is rejected.
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
            steps: Steps per epoch.

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
        """Returns the whole state by the names in the checkpoint."""
        tensors = {f"model.{name}": value for name, value in state_of(self.model).items()}
        tensors |= {f"memory.{name}": value for name, value in self.memory.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value.detach()
        return tensors

    def _resume(self) -> list[Record]:
        """Restores the state after the last finished epoch and returns the records of all finished epochs."""
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
    """Returns the tensors of a model that training changes: parameters that need gradients, and all buffers."""
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return trained | dict(model.named_buffers())


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into tensors of the same names."""
    for name, value in values.items():
        tensors[name].copy_(value)


def check_finite(loss: Tensor, epoch: int, *, advice: str | None = None) -> None:
    """Checks that the loss of an epoch is finite.

    Args:
        loss: The loss, or a sum of losses.
        epoch: Number of the epoch, from 1.
        advice: What the message suggests; None for a lower learning rate or fp32.

    Raises:
        TrainingError: The loss is not finite.
    """
    if not bool(torch.isfinite(loss)):
        advice = advice or f"a lower {setting('learning_rate')} or {setting('precision')} fp32"
        raise TrainingError(f"the loss is no longer a finite number in epoch {epoch}; use {advice}")
