"""The environment of a run: processes, device, precision, seed, checkpoints and progress."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from labelsieve.core.attention import ExplicitAttention
from labelsieve.core.cache import cache_limit
from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import versions
from labelsieve.core.validation import Seed, check_value

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where and how a run computes.

    Attributes:
        accelerator: Devices and processes, from `accelerate`.
        precision: `bf16` computes the encoders under autocast; parameters, losses and probabilities stay in fp32.
        seed: All random numbers derive from it; global generators are not used.
        checkpoint: Folder for the state after each epoch; None writes no checkpoints.
        resume: Whether to resume from an existing checkpoint.
        progress: Where to show progress.
    """

    accelerator: Accelerator
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    progress: Progress = field(default_factory=Progress)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device  # type: ignore[no-any-return]  # accelerate has no types

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Runs the encoders within the `with` statement in the precision of the run."""
        if self.precision == "fp32":
            yield
            return
        with torch.autocast(self.device.type, dtype=torch.bfloat16), ExplicitAttention():
            yield

    def circumstances(self, *, seconds: float) -> dict[str, Any]:
        """Returns the provenance of a result for its record: time, duration, seed, machine and versions."""
        installed = versions()
        return {
            "labelsieve": installed.get("labelsieve", "unknown"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": self.seed,
            "precision": self.precision,
            "processes": self.accelerator.num_processes,
            "hardware": f"{self.device.type}, {platform.machine()}",
            "seconds": round(seconds, 2),
            "versions": installed,
        }

    def generator(self, *purpose: int) -> torch.Generator:
        """Returns a CPU generator for one purpose, the same in every process and on every resume."""
        state = np.random.SeedSequence([self.seed, *purpose]).generate_state(2)
        return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))

    def share(self, batch: Sequence[int]) -> Sequence[int]:
        """Returns the rows of a batch that this process handles."""
        return batch[self.accelerator.process_index :: self.accelerator.num_processes]

    def total(self, value: Tensor) -> Tensor:
        """Returns the sum of a tensor over the processes."""
        return self.accelerator.reduce(value, "sum") if self.accelerator.num_processes > 1 else value

    def count(self, number: int) -> int:
        """Returns the sum of a number over the processes; with one process there is no synchronisation."""
        if self.accelerator.num_processes == 1:
            return number
        return int(self.total(torch.tensor(number, device=self.device)))

    def gather(self, values: Tensor) -> Tensor:
        """Concatenates the values (n,) of all processes; n may differ between processes."""
        if self.accelerator.num_processes == 1:
            return values
        counts = self.accelerator.gather(values.new_tensor([len(values)], dtype=torch.int64)).tolist()
        padded = values.new_zeros(max(counts))
        padded[: len(values)] = values
        parts = self.accelerator.gather(padded).split(max(counts)) if max(counts) else ()
        return torch.cat([values[:0], *(part[:count] for part, count in zip(parts, counts, strict=True))])

    def sum_gradients(self, module: nn.Module) -> None:
        """Sums gradients over the processes: each divides its loss by the size of the whole batch, so no mean."""
        for parameter in module.parameters():
            if parameter.requires_grad and self.accelerator.num_processes > 1:
                parameter.grad = self.total(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)


def make_engine(
    *,
    device: str = "auto",
    precision: Precision = "auto",
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Engine:
    """Sets up the device and the precision and, under `accelerate launch`, the process group.

    Args:
        device: `cpu`, `cuda` or `mps`; `auto` leaves the choice to `accelerate`.
        precision: `auto` uses bf16 autocast if it is faster than fp32 on this hardware.
        seed: See :class:`Engine`.
        checkpoint: See :class:`Engine`.
        resume: See :class:`Engine`.
        progress: See :class:`Engine`.

    Raises:
        SettingsError: The device or precision is unknown or not available, or the seed is out of range.
    """
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, False):
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise SettingsError(f"expected {setting('device')} to be one of those available here ({names}), got {device}")
    if precision not in ("auto", "fp32", "bf16"):
        raise SettingsError(f"expected {setting('precision')} to be auto, fp32 or bf16, got {precision}")
    check_value("seed", seed, Seed)
    cache_limit()  # reports an invalid limit before the run starts
    try:
        accelerator = Accelerator(cpu=device == "cpu")
    except ValueError:  # accelerate keeps the device of its first use, here a GPU
        accelerator = Accelerator()
    if device not in ("auto", accelerator.device.type):
        raise SettingsError(
            f"{setting('device')} {device} was asked for, but this process was set up on {accelerator.device.type}; "
            "start another one"
        )
    resolved = ("bf16" if is_bf16_faster(accelerator.device) else "fp32") if precision == "auto" else precision
    return Engine(
        accelerator=accelerator,
        precision=resolved,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress or Progress(),
    )


def is_bf16_faster(device: torch.device) -> bool:
    """Returns whether the hardware has matrix units for bf16: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False
